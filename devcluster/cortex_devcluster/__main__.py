"""`python -m cortex_devcluster`: an API server and a node on this machine, for development and tests only."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path

from cortex_devcluster.addresses import AddressesExhausted
from cortex_devcluster.cluster import default_images
from cortex_devcluster.server import serve


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cortex_devcluster", description=__doc__)
    parser.add_argument(
        "--state-dir",
        type=Path,
        help="folder for the kubeconfig and the files of pods (default: a new temporary folder)",
    )
    parser.add_argument("--port", type=int, default=0, help="port of the API server (default: a free port)")
    parser.add_argument(
        "--image",
        action="append",
        help="image name that pods may use; may be repeated (default: the runtime of this version)",
    )
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input is closed")
    return parser.parse_args()


async def run(options: argparse.Namespace, state_dir: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.until_eof:
        loop.add_reader(sys.stdin.fileno(), _stop_at_eof, stop)
    else:
        print(f"export KUBECONFIG={state_dir / 'kubeconfig'}", flush=True)
    images = options.image or default_images()
    await serve(state_dir, options.port, images, stop)


def _stop_at_eof(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()


def main() -> int:
    options = parse_arguments()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    state_dir = options.state_dir or Path(tempfile.mkdtemp(prefix="cortex-dev-"))
    try:
        asyncio.run(run(options, state_dir.absolute()))
    except (AddressesExhausted, OSError) as error:
        print(f"the dev cluster cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
