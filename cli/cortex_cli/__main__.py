"""The `cortex` command: run and validate APIs locally, and inspect the APIs of a cluster."""

import os
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from cortex_api import __version__

_COMMANDS = (
    *("init", "run", "dev", "validate", "convert", "pack", "get", "predict", "logs", "doctor", "bench", "ui"),
    *("diff", "promote", "abort", "retry", "history", "rollback"),
)
_INTERRUPTED, _BROKEN_PIPE = 130, 141
"""Exit codes: Ctrl-C, and a reader of stdout that has exited, as in `cortex get | head`. A shell shows them for the signals."""
_CONTEXTS = "kubectl config use-context, or --context"
_REPLACED = {
    "deploy": "`cortex convert cortex.yaml > api.yaml`, then `kubectl apply -f api.yaml`",
    "refresh": "`kubectl rollout restart deployment/api-NAME`",
    "patch": "`kubectl patch`, or change the manifest and `kubectl apply -f` it",
    "delete": "`kubectl delete realtimeapi NAME` (or asyncapi)",
    "describe": "`cortex get NAME`",
    "status": "`cortex get NAME`",
    "export": "`kubectl get realtimeapi NAME -o yaml`",
    "prepare-debug": "`cortex run FILE`, which serves an API locally, or `cortex dev FILE`, in a cluster",
    "cluster": "the Helm chart, on an existing cluster",
    "cluster-gcp": "the Helm chart, on an existing cluster",
    "env": f"kubeconfig contexts: {_CONTEXTS}",
    "configure": f"kubeconfig contexts: {_CONTEXTS}",
    "support": "`cortex doctor`",
    "completion": "_CORTEX_COMPLETE (docs/command-line.md)",
    "version": "`cortex --version`",
}
"""Commands of the original Cortex, and their replacements."""


class _Commands(click.Group):
    """Import only the invoked command, because each command needs different libraries."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the command names in the order of --help."""
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import and return a command, or None if it is unknown."""
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"cortex_cli.commands.{name}"), name)
        return command

    def invoke(self, context: click.Context) -> Any:
        """Invoke a command. Exit without a message if it is interrupted, or if the reader of its output has exited."""
        try:
            return super().invoke(context)
        except (KeyboardInterrupt, click.Abort) as error:
            if not any(isinstance(each, KeyboardInterrupt) for each in (error, error.__context__)):
                raise  # The end of stdin, where a prompt expects an answer.
            click.echo(err=True)
            context.exit(_INTERRUPTED)
        except BrokenPipeError:
            # The interpreter flushes stdout when it exits, which would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(_BROKEN_PIPE)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the invoked command. Raises UsageError, which names the replacement of a command of the original Cortex."""
        name = args[0]
        if name in _REPLACED:
            context.fail(f"No such command {name!r}. Use {_REPLACED[name]} instead.")
        if name not in _COMMANDS and (matches := get_close_matches(name, _COMMANDS, 1)):
            context.fail(f"No such command {name!r}. Did you mean {matches[0]!r}?")
        return super().resolve_command(context, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cortex")
@click.pass_context
def main(context: click.Context) -> None:
    """Serve models on Kubernetes and locally."""
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        context.color = False


def plugin() -> None:
    """Run as the kubectl plugin `kubectl cortex`."""
    main(prog_name="kubectl cortex")


if __name__ == "__main__":
    main(prog_name="cortex")
