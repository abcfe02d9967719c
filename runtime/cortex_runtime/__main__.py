"""`python -m cortex_runtime serve`: serves one API from the document that the operator, or `cortex run`, wrote."""

import argparse
import os
import sys
from pathlib import Path

from cortex_runtime.supervisor import Options, serve


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 after a drain, 1 when the API can't start."""
    parser = argparse.ArgumentParser(prog="python -m cortex_runtime", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "serve", help="serve a RealtimeAPI", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    command.add_argument(
        "--config", type=Path, default=Path("/etc/cortex/api.json"), help="the API's document"
    )
    command.add_argument("--project", type=Path, default=Path("/mnt/project"), help="folder of the code")
    command.add_argument("--models", type=Path, default=Path("/mnt/models"), help="folder for fetched models")
    command.add_argument(
        "--host", default=os.environ.get("CORTEX_HOST", "0.0.0.0"), help="address to listen on"
    )
    command.add_argument("--port", type=int, default=8080, help="port of the API")
    command.add_argument("--admin-port", type=int, default=8081, help="port of health, readiness and metrics")
    command.add_argument(
        "--termination-log",
        type=Path,
        default=Path("/dev/termination-log"),
        help="where a cause of death is written",
    )
    command.add_argument(
        "--drain-delay",
        type=float,
        default=1.0,
        help="seconds for which connections are still taken after SIGTERM",
    )
    command.add_argument(
        "--reload", action="store_true", help="load the project again when a file of it changes"
    )
    options = vars(parser.parse_args(arguments))
    del options["command"]
    for name in ("config", "project", "models"):
        options[name] = options[name].absolute()
    return serve(Options(**options))


if __name__ == "__main__":
    sys.exit(main())
