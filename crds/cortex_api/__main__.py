"""`python -m cortex_api [--check] [FOLDER]`: writes the CustomResourceDefinitions, or says which of them is out of date."""

import argparse
import sys
from pathlib import Path

import yaml

from cortex_api.kinds import KINDS
from cortex_api.schema import crd

_HEADER = "# Generated from the models in cortex_api by `make crds`. Edit those.\n"


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
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs")
    arguments = parser.parse_args()
    outdated = []
    for folder in arguments.folder:
        for name, text in manifests().items():
            path = folder / name
            if path.is_file() and path.read_text() == text:
                continue
            outdated.append(str(path))
            if not arguments.check:
                folder.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    if arguments.check and outdated:
        print(f"out of date: {', '.join(outdated)}; run `make crds`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
