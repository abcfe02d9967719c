"""The `cortex` command. Clusters are spoken to with kubectl; this is for what happens before: checking and trying."""

import click

from cortex_api import __version__
from cortex_cli.run import run
from cortex_cli.validate import validate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cortex")
def main() -> None:
    """Serve models on Kubernetes, and on this machine."""


main.add_command(run)
main.add_command(validate)

if __name__ == "__main__":
    main(prog_name="cortex")
