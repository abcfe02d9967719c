"""`python -m cortex_api [--check] [--docs FOLDER] [FOLDER ...]`: writes what is generated from the models, or says which file
of it is out of date: the CustomResourceDefinitions, and pages of the docs.
"""

import argparse
import sys
from pathlib import Path

import yaml

from cortex_api.docs import pages
from cortex_api.kinds import KINDS
from cortex_api.schema import crd

_HEADER = "# Generated from the models in cortex_api by `make generate`. Edit those.\n"


def manifests() -> dict[str, str]:
    """File name to YAML of every CustomResourceDefinition."""
    return {
        f"{kind.plural}.yaml": _HEADER
        + yaml.safe_dump(crd(kind), sort_keys=False, width=120, allow_unicode=True)
        for kind in KINDS.values()
    }


def main() -> int:
    """Exit status: 0, or 1 when --check finds a file that differs."""
    parser = argparse.ArgumentParser(prog="python -m cortex_api", description=__doc__)
    parser.add_argument("folder", nargs="*", type=Path, default=[Path(__file__).resolve().parents[1]])
    parser.add_argument("--docs", type=Path, help="a folder for the pages of the docs that are generated")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs")
    arguments = parser.parse_args()
    wanted = {folder / name: text for folder in arguments.folder for name, text in manifests().items()}
    if arguments.docs is not None:
        wanted |= {arguments.docs / name: text for name, text in pages().items()}
    outdated = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    if arguments.check and outdated:
        print(f"out of date: {', '.join(map(str, outdated))}; run `make generate`", file=sys.stderr)
        return 1
    for path in outdated:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
