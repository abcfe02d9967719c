"""`python charts/reference.py [--check]`: writes docs/chart.md from the comments of the chart's values.yaml, or says that it
is out of date. `make generate` and `make lint` call it.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
VALUES = ROOT / "charts" / "cortex" / "values.yaml"
PAGE = ROOT / "docs" / "chart.md"
HEAD = """<!-- Generated from charts/cortex/values.yaml by `make generate`. Edit that. -->
# The chart

`charts/cortex` installs the operator, the two kinds and what the operator may do; all else is asked for by a value below. What is
misspelt, of the wrong type or contradicts another value is refused at install, by name.

<!-- not run: needs a cluster -->
```sh
helm install cortex charts/cortex --namespace cortex --create-namespace --set nats.enabled=true
helm test cortex --namespace cortex
```

A value that is an object or a list is written in a file: `helm install ... --values values.yaml`.

## Upgrades

`helm upgrade` without values keeps those of the release, and with any it forgets the others; `--reuse-values` even keeps the old
chart's defaults. So keep your values in a file, and have all else come from the new chart:

<!-- not run: needs a cluster -->
```sh
helm upgrade cortex charts/cortex --namespace cortex --reset-values --values values.yaml
```

Without a file, `--reset-then-reuse-values` keeps what was given to the release. The kinds are upgraded with the chart. Pods
of APIs are replaced where what runs in them changes: with `runtime.image`, whose tag is the chart's unless you name another.

`helm uninstall` leaves the two kinds, and so all APIs, unless `crds.keep` is false.

## Kinds that are there already

Kinds that came by `kubectl apply -f crds/`, or that another release left, are not Helm's to change, and it refuses to install:
"invalid ownership metadata". Hand them over to the release, here `cortex` in the namespace `cortex`:

```sh
kubectl label --overwrite crd realtimeapis.cortex.dev asyncapis.cortex.dev app.kubernetes.io/managed-by=Helm
kubectl annotate --overwrite crd realtimeapis.cortex.dev asyncapis.cortex.dev \\
  meta.helm.sh/release-name=cortex meta.helm.sh/release-namespace=cortex
```

`helm install --take-ownership` (Helm 3.17 and newer) does the same. Where the kinds are to stay apart from the release, leave
them out with `--set crds.enabled=false`, and apply `crds/` before each upgrade.
"""


@dataclass(frozen=True)
class Value:
    """One key of values.yaml. comment: the lines above it. children: None for what is a value and not a section of them."""

    path: str
    comment: str
    default: object
    children: tuple["Value", ...] | None

    def leaves(self) -> Iterator["Value"]:
        """The values in it, or itself."""
        for child in self.children or ():
            yield from child.leaves()
        if self.children is None:
            yield self


def read(text: str) -> tuple[Value, ...]:
    """The values of a values.yaml, in order."""
    return _read(yaml.compose(text, yaml.SafeLoader), text.splitlines(), "")


def _read(node: yaml.Node | None, lines: list[str], above: str) -> tuple[Value, ...]:
    found = []
    for key, content in node.value if isinstance(node, yaml.MappingNode) else ():
        path, comment = f"{above}{key.value}", _comment(lines, key.start_mark.line)
        default = yaml.safe_load(yaml.serialize(content))
        children = _read(content, lines, f"{path}.") or None
        if comment and children and not any(leaf.comment for child in children for leaf in child.leaves()):
            children = None  # An object that is one value, as `resources` is.
        found.append(Value(path, comment, default, children))
    return tuple(found)


def _comment(lines: list[str], line: int) -> str:
    above = []
    while line > 0 and lines[line - 1].lstrip().startswith("# "):
        line -= 1
        above.insert(0, lines[line].lstrip().removeprefix("# "))
    return " ".join(above)


def page(values: tuple[Value, ...]) -> str:
    """The page: a table for each section, and one for the values that stand alone."""
    parts = [HEAD]
    for section in values:
        if section.children is not None:
            note = f"{section.comment}\n\n" if section.comment else ""
            parts.append(f"## {section.path}\n\n{note}{_table(section.leaves())}")
    parts.append(f"## Others\n\n{_table(value for value in values if value.children is None)}")
    return "\n".join(parts)


def _table(values: Iterator[Value]) -> str:
    rows = [
        f"| `{value.path}` | `{_cell(json.dumps(value.default))}` | {_cell(value.comment)} |"
        for value in values
    ]
    return "\n".join(["| Value | Default | Meaning |", "| --- | --- | --- |", *rows, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Exit status: 0, or 1 when --check finds the page out of date."""
    wanted = page(read(VALUES.read_text()))
    if "--check" not in arguments:
        PAGE.write_text(wanted)
    elif not PAGE.is_file() or PAGE.read_text() != wanted:
        print(f"out of date: {PAGE.relative_to(ROOT)}; run `make generate`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
