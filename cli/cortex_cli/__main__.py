"""The `cortex` command: tries and checks APIs on this machine, and shows those of a cluster."""

from difflib import get_close_matches
from importlib import import_module

import click

from cortex_api import __version__

_MODULES = {
    "run": "run",
    "validate": "validate",
    "convert": "convert.command",
    "pack": "pack",
    "get": "get",
    "predict": "predict",
    "logs": "logs",
    "doctor": "doctor",
}
_NOW_KUBECTL = "kubectl config use-context, or --context"
_FORMER = {
    "deploy": "`cortex convert cortex.yaml > api.yaml`, then `kubectl apply -f api.yaml`",
    "refresh": "`kubectl rollout restart deployment/api-NAME`",
    "patch": "`kubectl patch`, or change the manifest and `kubectl apply -f` it",
    "delete": "`kubectl delete realtimeapi NAME` (or asyncapi)",
    "describe": "`cortex get NAME`",
    "status": "`cortex get NAME`",
    "export": "`kubectl get realtimeapi NAME -o yaml`",
    "prepare-debug": "`cortex run FILE`, which serves an API on this machine",
    "cluster": "the Helm chart, on a cluster that exists",
    "cluster-gcp": "the Helm chart, on a cluster that exists",
    "env": f"contexts of kubeconfig: {_NOW_KUBECTL}",
    "configure": f"contexts of kubeconfig: {_NOW_KUBECTL}",
    "support": "`cortex doctor`",
    "completion": "_CORTEX_COMPLETE (docs/command-line.md)",
    "version": "`cortex --version`",
}
"""Commands of the former Cortex, and what does the same now."""


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

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is called. Raises UsageError that says what replaces a command of the former Cortex."""
        name = args[0]
        if name in _FORMER:
            context.fail(f"No such command {name!r}: it is {_FORMER[name]} now.")
        if name not in _MODULES and (near := get_close_matches(name, _MODULES, 1)):
            context.fail(f"No such command {name!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(context, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cortex")
def main() -> None:
    """Serve models on Kubernetes, and on this machine."""


def plugin() -> None:
    """`kubectl cortex ...`: the same, found by kubectl as its plugin."""
    main(prog_name="kubectl cortex")


if __name__ == "__main__":
    main(prog_name="cortex")
