"""`cortex init`: create a project that `cortex run` serves at once, from one of the folders in templates/."""

import os
import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
import yaml

from cortex_api import InvalidManifest, parse
from cortex_api.contract import PORT
from cortex_cli.local.ports import HOST

_TEMPLATES = Path(__file__).parents[1] / "templates"
_PLACEHOLDER = "my-api"
"""The name of the API in all templates, which are complete projects."""
_DESCRIPTIONS = {
    "python": "a Python class",
    "onnx": "an ONNX model",
    "tensorflow": "a TensorFlow SavedModel",
    "async": "jobs that are processed from a queue",
    "sklearn": "a scikit-learn model",
    "pytorch": "a PyTorch network",
    "huggingface": "a model of the Hugging Face Hub",
}
_REQUIRED = {
    "tensorflow": ("tensorflow-cpu", "tensorflow"),
    "sklearn": ("scikit-learn",),
    "pytorch": ("torch",),
    "huggingface": ("transformers", "torch"),
}
"""Distributions that the handler of a template imports, or that serve its model locally."""


@click.command(short_help="Create a project that runs at once.")
@click.argument("template", required=False, metavar="[TEMPLATE]", type=click.Choice(list(_DESCRIPTIONS)))
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("-y", "--yes", is_flag=True, help=f"Ask nothing: python, in ./{_PLACEHOLDER}.")
def init(template: str | None, folder: Path | None, yes: bool) -> None:
    """Create a project: a manifest, a handler with a test, a sample request and a README.

    TEMPLATE is python, onnx, tensorflow, async, sklearn, pytorch or huggingface.

    The API is named after FOLDER. Existing files are never overwritten.
    """
    if not yes and (template is None or folder is None) and not sys.stdin.isatty():
        raise click.UsageError(f"pass TEMPLATE ({', '.join(_DESCRIPTIONS)}) and FOLDER, or --yes")
    if template is None:
        template = "python" if yes else _ask_template()
    if folder is None:
        folder = Path(_PLACEHOLDER if yes else click.prompt("Folder", default=_PLACEHOLDER))
    name = re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-")
    files = render(template, name)
    if existing := sorted(path for path in files if (folder / path).exists()):
        raise click.ClickException(
            f"{folder} already contains {', '.join(existing)}; choose another folder, or move these files away"
        )
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    click.echo(
        f"Created {folder}: {', '.join(path for path in files if not path.startswith(('.', 'model/')))}"
    )
    click.echo("\nNext:\n")
    for command in _next_commands(template, folder):
        click.echo(f"    {command}")
    click.echo(f"\n{folder / 'README.md'} describes how to test and deploy it.")


def render(template: str, name: str) -> dict[str, bytes]:
    """Return the files of a project by relative path.

    template: name of a folder in templates/. name: name of the API. Raises ClickException if the name is not valid.
    """
    root = _TEMPLATES / template
    files = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            if path.suffix in (".md", ".yaml"):
                content = content.replace(_PLACEHOLDER.encode(), name.encode())
            files[path.relative_to(root).as_posix()] = content
    try:
        parse(yaml.safe_load(files["api.yaml"]) | {"metadata": {"name": name}})
    except InvalidManifest as error:
        problem = error.problems[0]
        raise click.ClickException(
            f'"{name}" is not a valid name of an API: {problem.message}; choose another folder'
        ) from error
    return files


def _ask_template() -> str:
    for name, description in _DESCRIPTIONS.items():
        click.echo(f"  {name:<12} {description}")
    return str(
        click.prompt("Template", type=click.Choice(list(_DESCRIPTIONS)), default="python", show_choices=False)
    )


def _next_commands(template: str, folder: Path) -> list[str]:
    commands = [] if folder.absolute() == Path.cwd() else [f"cd {shlex.quote(os.fspath(folder))}"]
    if template in _REQUIRED and not any(_is_installed(name) for name in _REQUIRED[template]):
        commands.append(
            "pip install tensorflow" if template == "tensorflow" else "pip install -r requirements.txt"
        )
    body = "-H 'content-type: application/json' -d @sample.json"
    return [
        *commands,
        "cortex run api.yaml --reload",
        f"curl http://{HOST}:{PORT} {body}    # in another terminal",
    ]


def _is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False
