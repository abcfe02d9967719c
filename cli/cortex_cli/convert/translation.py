"""A manifest in the making, with the lines that its fields come from and what a reader should know about it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cortex_cli.convert.ages import Age
from cortex_cli.convert.reading import Entry


@dataclass(frozen=True)
class Remark:
    """Something that a reader of the old file should know. lost: whether it needs a decision or was left behind."""

    line: int
    text: str
    lost: bool = False


@dataclass
class Translation:
    """A manifest in the making.

    lines: the line of the old file that each of its fields comes from. seen: the old fields that were looked at. contradiction:
    whether the old file says two things that can't both hold.
    """

    entry: Entry
    age: Age
    manifest: dict[str, Any] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    contradiction: bool = False

    def put(self, new: str, value: Any, old: str, remark: str = "") -> None:
        """Set a field of the manifest, from the line of an old one."""
        parent = self.manifest
        *above, last = new.split(".")
        for name in above:
            parent = parent.setdefault(name, {})
        parent[last] = value
        self.lines[new] = self.entry.line(old)
        if remark:
            self.remarks.append(Remark(self.lines[new], remark))

    def carry(
        self, old: str, new: str, change: Callable[[Any], Any] = lambda value: value, note: str = ""
    ) -> None:
        """Take a field to its new place, if it is there and not null; say so when it has another name there."""
        self.seen.add(old)
        value = self.entry.get(old)
        if value is None:
            return
        same = camel(old) == new.removeprefix("spec.") or old == "name"
        self.put(new, change(value), old, "" if same and not note else f"{old} is {new} now{note}")

    def leave(self, old: str, why: str) -> None:
        """A field that stays behind, if it is there."""
        self.seen.add(old)
        if self.entry.get(old) is not None:
            self.remarks.append(Remark(self.entry.line(old), f"{old} is not carried over: {why}", lost=True))

    def contradict(self, old: str, why: str) -> None:
        """Something that can't be served: the old Cortex refused it as well, or this runtime has nothing of the kind."""
        self.contradiction = True
        self.remarks.append(Remark(self.entry.line(old), f"not valid: {why}", lost=True))


def camel(name: str) -> str:
    """The name of a field as the manifests have it: max_replicas is maxReplicas."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)
