"""The `cortex` command: tries and checks APIs on this machine, and shows those of a cluster."""

from importlib import import_module

import click

from cortex_api import __version__

_MODULES = {
    "run": "run",
    "validate": "validate",
    "convert": "convert.command",
    "get": "get",
    "predict": "predict",
    "logs": "logs",
    "doctor": "doctor",
}


class _Commands(click.Group):
    """Imports only the command that is called: each needs libraries that the others don't."""

    def list_commands(self, context: click.Context) -> list[str]:
        """In the order of --help."""
        return list(_MODULES)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """One of them, or None."""
        if name not in _MODULES:
            return None
        command: click.Command = getattr(import_module(f"cortex_cli.{_MODULES[name]}"), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cortex")
def main() -> None:
    """Serve models on Kubernetes, and on this machine."""


def plugin() -> None:
    """`kubectl cortex ...`: the same, found by kubectl as its plugin."""
    main(prog_name="kubectl cortex")


if __name__ == "__main__":
    main(prog_name="cortex")
