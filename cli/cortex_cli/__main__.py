"""The `cortex` command: tries and checks APIs on this machine, and shows those of a cluster."""

import click

from cortex_api import __version__
from cortex_cli.convert.command import convert
from cortex_cli.doctor import doctor
from cortex_cli.get import get
from cortex_cli.logs import logs
from cortex_cli.predict import predict
from cortex_cli.run import run
from cortex_cli.validate import validate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cortex")
def main() -> None:
    """Serve models on Kubernetes, and on this machine."""


for command in (run, validate, convert, get, predict, logs, doctor):
    main.add_command(command)


def plugin() -> None:
    """`kubectl cortex ...`: the same, found by kubectl as its plugin."""
    main(prog_name="kubectl cortex")


if __name__ == "__main__":
    main(prog_name="cortex")
