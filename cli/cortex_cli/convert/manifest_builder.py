"""Builds a manifest during conversion: its fields, their original lines, and remarks."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cortex_cli.convert.legacy import Entry
from cortex_cli.convert.releases import ReleaseRange


@dataclass(frozen=True)
class Remark:
    """A remark on a line of the original file.

    needs_action: whether the field was dropped or requires an action of the user.
    """

    line: int
    text: str
    needs_action: bool = False


@dataclass
class ManifestBuilder:
    """The converted manifest, built field by field.

    lines: the original line of each field of the manifest. seen: the original fields that have been processed.
    is_invalid: whether the original file is invalid or cannot be served.
    """

    entry: Entry
    releases: ReleaseRange
    manifest: dict[str, Any] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    is_invalid: bool = False

    def set(self, new: str, value: Any, old: str, remark: str = "") -> None:
        """Set a field of the manifest, with the line of an original field."""
        parent = self.manifest
        *above, last = new.split(".")
        for name in above:
            parent = parent.setdefault(name, {})
        parent[last] = value
        self.lines[new] = self.entry.line(old)
        if remark:
            self.remarks.append(Remark(self.lines[new], remark))

    def copy(
        self, old: str, new: str, change: Callable[[Any], Any] = lambda value: value, note: str = ""
    ) -> None:
        """Copy an original field to the manifest if it is set. Adds a remark if its name changes."""
        self.seen.add(old)
        value = self.entry.get(old)
        if value is None:
            return
        is_same_name = camel(old) == new.removeprefix("spec.") or old == "name"
        self.set(new, change(value), old, "" if is_same_name and not note else f"{old} is now {new}{note}")

    def drop(self, old: str, why: str) -> None:
        """Drop an original field. Adds a remark if it is set."""
        self.seen.add(old)
        if self.entry.get(old) is not None:
            self.remarks.append(
                Remark(self.entry.line(old), f"{old} is not converted: {why}", needs_action=True)
            )

    def reject(self, old: str, why: str) -> None:
        """Report a field that cannot be served."""
        self.is_invalid = True
        self.remarks.append(Remark(self.entry.line(old), f"not valid: {why}", needs_action=True))


def camel(name: str) -> str:
    """Convert a field name to camelCase: max_replicas becomes maxReplicas."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)
