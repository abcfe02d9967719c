"""Set `handler.source` of converted APIs, and pack the folder of the file into a ConfigMap."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex_cli.commands.pack import Packed, file_count, pack_folder
from cortex_cli.convert.manifest_builder import ManifestBuilder, Remark
from cortex_cli.project_files import PackError


@dataclass(frozen=True)
class Code:
    """The project of a file.

    folder: the folder of the project; None if the file comes from a pipe.
    source: "configmap", "image", or the URI of the project.
    name: name of the ConfigMap, which all APIs of the file share.
    file: the cortex.yaml, which is not packed.
    """

    folder: Path | None
    source: str
    name: str
    file: Path | None = None

    def apply_to(self, to: ManifestBuilder) -> None:
        """Set `handler.source`, and the dependency files that old releases found by their names."""
        handler, line = to.manifest["spec"]["handler"], to.entry.line()
        if _needs_project(handler):
            if self.source == "configmap":
                handler["source"] = {"configMap": {"name": self.name}}
            elif self.source != "image":
                handler["source"] = {"uri": self.source}
        if self.folder is None:
            return
        path = handler.get("path")
        if path and self.source == "configmap" and not (self.folder / str(path)).is_file():
            text = f"{path} is not in {_display(self.folder)}, so ConfigMap {self.name} does not contain it"
            to.remarks.append(Remark(line, text, needs_action=True))
        existing = handler.get("dependencies", {})
        for kind, file in (("pip", "requirements.txt"), ("shell", "dependencies.sh")):
            if kind not in existing and (self.folder / file).exists() and path:
                handler.setdefault("dependencies", {})[kind] = file
                to.remarks.append(
                    Remark(line, f"{file} was installed by default; handler.dependencies names it now")
                )
        if (self.folder / "conda-packages.txt").exists():
            text = "conda-packages.txt is not converted: move its packages to requirements.txt or to your own image"
            to.remarks.append(Remark(line, text, needs_action=True))

    def config_map(self, apis: list[ManifestBuilder]) -> tuple[Packed | None, list[Remark], bool]:
        """Return the ConfigMap for the APIs of the file, remarks about it, and whether packing failed."""
        handlers = [to.manifest["spec"]["handler"] for to in apis]
        users = [handler for handler in handlers if "configMap" in handler.get("source", {})]
        if not users:
            return None, [], False
        line = apis[0].entry.line()
        command = f"cortex pack {_display(self.folder)} --name {self.name}"
        if self.folder is None or not any((self.folder / str(one.get("path"))).is_file() for one in users):
            text = f"ConfigMap {self.name} is missing; create it with `{command} | kubectl apply -f -`"
            return None, [Remark(line, text, needs_action=True)], False
        try:
            packed = pack_folder(self.folder, self.name, [self.file] if self.file else [])
        except PackError as error:
            text = f"ConfigMap {self.name} cannot be created: {error}; then run `{command}`, or convert with --source"
            return None, [Remark(line, text, needs_action=True)], True
        text = (
            f"ConfigMap {self.name} contains a copy of the project ({file_count(packed.files)}); after a change, run"
            f" `{command} | kubectl apply {'--server-side ' if packed.apply_hint else ''}-f -`"
        )
        remarks = [Remark(line, text, needs_action=True)]
        if packed.apply_hint:
            remarks.append(Remark(line, packed.apply_hint, needs_action=True))
        return packed, remarks, False


def _needs_project(handler: dict[str, Any]) -> bool:
    return bool(handler.get("path")) or any(is_in_project(place) for place in locations(handler))


def locations(handler: dict[str, Any]) -> list[str]:
    """Return the locations of the models of a converted handler."""
    models = handler.get("models")
    if not isinstance(models, dict):
        return []
    paths = models.get("paths")
    listed = (
        [model.get("path") for model in paths if isinstance(model, dict)] if isinstance(paths, list) else []
    )
    return [place for place in (models.get("path"), models.get("dir"), *listed) if isinstance(place, str)]


def is_in_project(location: str) -> bool:
    """Return whether a location is a path relative to the project."""
    return "://" not in location and not location.startswith(("/", "~"))


def _display(folder: Path | None) -> str:
    if folder is None:
        return "FOLDER"
    current = Path.cwd()
    return shlex.quote(str(folder.relative_to(current)) if folder.is_relative_to(current) else str(folder))
