"""Where the code of a file's APIs comes from, which used to be the folder of the file: `handler.source`, and the ConfigMap that
it names.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex_cli.convert.translation import Remark, Translation
from cortex_cli.pack import Packed, counted, pack_folder
from cortex_cli.project import Unpackable


@dataclass(frozen=True)
class Code:
    """The project of a file.

    folder: where it is, None when the file came from a pipe. source: "configmap", "image", or the project's URI. name: of the
    ConfigMap, which all APIs of the file share. file: the old file, which is not a part of it.
    """

    folder: Path | None
    source: str
    name: str
    file: Path | None = None

    def carry(self, to: Translation) -> None:
        """Write `handler.source`, and the files of dependencies that were found by their names."""
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
            text = f"{path} is not in {_shown(self.folder)}, and so not in ConfigMap {self.name}"
            to.remarks.append(Remark(line, text, lost=True))
        given = handler.get("dependencies", {})
        for kind, file in (("pip", "requirements.txt"), ("shell", "dependencies.sh")):
            if kind not in given and (self.folder / file).exists() and path:
                handler.setdefault("dependencies", {})[kind] = file
                to.remarks.append(Remark(line, f"{file} was installed by its name alone: it is named now"))
        if (self.folder / "conda-packages.txt").exists():
            text = "conda-packages.txt is not carried over: write its packages into requirements.txt, or an image"
            to.remarks.append(Remark(line, text, lost=True))

    def config_map(self, apis: list[Translation]) -> tuple[Packed | None, list[Remark], bool]:
        """The ConfigMap that APIs of the file name, what to say of it, and whether there should be one and can't."""
        handlers = [to.manifest["spec"]["handler"] for to in apis]
        users = [handler for handler in handlers if "configMap" in handler.get("source", {})]
        if not users:
            return None, [], False
        line = apis[0].entry.line()
        command = f"cortex pack {_shown(self.folder)} --name {self.name}"
        if self.folder is None or not any((self.folder / str(one.get("path"))).is_file() for one in users):
            text = f"the code comes from ConfigMap {self.name}, which is not written here: `{command} | kubectl apply -f -`"
            return None, [Remark(line, text, lost=True)], False
        try:
            packed = pack_folder(self.folder, self.name, [self.file] if self.file else [])
        except Unpackable as error:
            text = (
                f"ConfigMap {self.name} can't be written: {error}; then `{command}`, or convert with --source"
            )
            return None, [Remark(line, text, lost=True)], True
        text = (
            f"the project ({counted(packed.files)}) is copied into ConfigMap {self.name}: a later change of it needs"
            f" `{command} | kubectl apply {'--server-side ' if packed.advice else ''}-f -`"
        )
        remarks = [Remark(line, text, lost=True)]
        if packed.advice:
            remarks.append(Remark(line, packed.advice, lost=True))
        return packed, remarks, False


def _needs_project(handler: dict[str, Any]) -> bool:
    return bool(handler.get("path")) or any(is_in_project(place) for place in locations(handler))


def locations(handler: dict[str, Any]) -> list[str]:
    """Where the models of a converted handler are."""
    models = handler.get("models")
    if not isinstance(models, dict):
        return []
    paths = models.get("paths")
    listed = (
        [model.get("path") for model in paths if isinstance(model, dict)] if isinstance(paths, list) else []
    )
    return [place for place in (models.get("path"), models.get("dir"), *listed) if isinstance(place, str)]


def is_in_project(location: str) -> bool:
    """Whether a location is a path that counts from the project."""
    return "://" not in location and not location.startswith(("/", "~"))


def _shown(folder: Path | None) -> str:
    if folder is None:
        return "FOLDER"
    here = Path.cwd()
    return shlex.quote(str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder))
