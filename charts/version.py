"""Write the version of `cortex_api` to the chart, the Dockerfiles and the docs, for `make generate` and `make lint`.

Usage: `python charts/version.py [--check]`.
"""

import re
import sys
from pathlib import Path

from cortex_api import __version__

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    "charts/cortex/Chart.yaml",
    "Dockerfile.operator",
    "Dockerfile.runtime",
    "README.md",
    "docs/contributing.md",
    "docs/models.md",
    "docs/quickstart.md",
)
_VERSION = re.compile(
    r"""((?:cortex-(?:operator|runtime|runtime-tensorflow):|^(?:version|appVersion):\ |\.image\.version="))\d+\.\d+\.\d+""",
    re.MULTILINE | re.VERBOSE,
)


def main(arguments: list[str]) -> int:
    """Write or check the files. Return the exit status: 0, or 1 if --check finds another version."""
    status = 0
    for name in FILES:
        path = ROOT / name
        text = path.read_text()
        expected = _VERSION.sub(rf"\g<1>{__version__}", text)
        if text == expected:
            continue
        if "--check" in arguments:
            print(f"{name} does not have version {__version__}; run `make generate`", file=sys.stderr)
            status = 1
        else:
            path.write_text(expected)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
