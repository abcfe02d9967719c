"""The environment of a project: packages, a script, variables and folders, ready before its code is imported; and failures."""

import os
import zipfile
from pathlib import Path

import pytest

from cortex_api.contract import DEPENDENCIES_VARIABLE
from cortex_api.handler import RealtimeHandler
from cortex_runtime.errors import StartError
from cortex_runtime.handler.dependencies import Installer
from cortex_runtime.processes.parent_pipe import ParentPipe

LIFELINE = ParentPipe()


def wheel(folder, name="flowerpot", version="1.0", requires=(), module="KIND = 'terracotta'\n"):
    """A package that pip can install without a network."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", module)
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def install(tmp_path):
    """Prepare a project in this process, and restore the environment afterwards."""
    before = dict(os.environ)
    os.environ["PIP_NO_INDEX"] = "1"
    installers = []

    def run(**dependencies):
        handler = RealtimeHandler.model_validate(
            {"type": "python", "path": "handler.py", "dependencies": dependencies or None}
        )
        installers.append(Installer(handler, tmp_path, LIFELINE))
        installers[-1].prepare()

    yield run
    for installer in installers:
        installer.close()
    os.environ.clear()
    os.environ.update(before)


def installed():
    return sorted(path.name for path in Path(os.environ[DEPENDENCIES_VARIABLE]).glob("*.py"))


def test_requirements_are_installed_in_addition_to_those_of_the_runtime(tmp_path, install):
    wheel(tmp_path, requires=["numpy>=1"])
    (tmp_path / "requirements.txt").write_text("./flowerpot-1.0-py3-none-any.whl\norjson\n")
    install()
    # numpy and orjson are already installed, and are not installed again.
    assert installed() == ["flowerpot.py"]


def test_files_with_other_names_and_in_folders(tmp_path, install):
    wheel(tmp_path)
    (tmp_path / "needs").mkdir()
    (tmp_path / "needs" / "production.txt").write_text("./flowerpot-1.0-py3-none-any.whl\n")
    (tmp_path / "needs" / "setup.sh").write_text("echo $(pwd) > where\n")
    install(pip="needs/production.txt", shell="needs/setup.sh")
    assert installed() == ["flowerpot.py"]
    assert (tmp_path / "where").read_text().strip() == str(tmp_path)


def test_a_project_without_dependencies_installs_nothing(install):
    install()
    assert DEPENDENCIES_VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("files", "named", "words"),
    [
        ({"requirements.txt": "no-such-package-anywhere\n"}, {}, ["pip exited with status 1", "no-such-package-anywhere"]),
        ({"requirements.txt": "numpy==1.0.1\n"}, {}, ["requested numpy==1.0.1", "requested (constraint) numpy==2"]),
        ({"dependencies.sh": "echo at work\nfalse\necho never\n"}, {}, ["dependencies.sh exited with status 1", "at work"]),
        ({"dependencies.sh": "kill -9 $$\n"}, {}, ["killed by signal 9"]),
        ({"conda-packages.txt": "pytorch\n"}, {}, ["conda packages are not supported", "requirements.txt"]),
        ({}, {"pip": "absent.txt"}, ["handler.dependencies.pip", "file absent.txt does not exist"]),
        ({}, {"shell": "absent.sh"}, ["handler.dependencies.shell", "file absent.sh does not exist"]),
        ({".env": "A='unfinished\n"}, {}, [".env: bash failed to read the file"]),
    ],
)  # fmt: skip
def test_a_failed_installation_is_reported_with_the_end_of_the_output(tmp_path, install, files, named, words):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(StartError) as error:
        install(**named)
    assert error.value.reason in ("DependencyInstallFailed", "InvalidSpec")
    for word in words:
        assert word in error.value.message
    assert "never" not in error.value.message


def test_the_variables_of_dot_env_are_there_for_everything_that_follows(tmp_path, install):
    (tmp_path / ".env").write_text('# a comment\nGREETING="good morning"\nexport TO=$GREETING,all\nEMPTY=\n')
    (tmp_path / "dependencies.sh").write_text('echo "$TO" > heard\n')
    install()
    assert (tmp_path / "heard").read_text() == "good morning,all\n"
    assert (os.environ["GREETING"], os.environ["EMPTY"]) == ("good morning", "")


PROJECT = """
import json, os, sys
import flowerpot, helper
from shared import settings
with open("data.json") as file:
    DATA = json.load(file)
class Handler:
    def handle_get(self):
        return [flowerpot.KIND, helper.NAME, settings.LEVEL, DATA, os.environ["GREETING"], os.getcwd()]
"""


@pytest.fixture
def project(tmp_path):
    """Create a project of many files; return the source of a handler.py that loads it."""

    def fill(folder):
        folder.mkdir(parents=True)
        wheel(folder)
        (folder / "requirements.txt").write_text("--no-index\n./flowerpot-1.0-py3-none-any.whl\n")
        (folder / "helper.py").write_text("NAME = 'helper'\n")
        (folder / "src" / "shared").mkdir(parents=True)
        (folder / "src" / "shared" / "settings.py").write_text("LEVEL = 3\n")
        (folder / "data.json").write_text('{"d": 1}')
        (folder / ".env").write_text("GREETING=hello\n")
        (folder / "dependencies.sh").write_text("echo once >> ran\n")

    return fill


def test_a_project_finds_its_modules_files_packages_and_variables(serve, project, tmp_path):
    fill, folder = project, tmp_path / "filled"
    fill(folder)
    api = serve(PROJECT, pythonPath="src", processesPerReplica=2, project=folder)
    import httpx

    cwd = str(api.project)
    assert httpx.get(api.url).json() == ["terracotta", "helper", 3, {"d": 1}, "hello", cwd]
    assert (api.project / "ran").read_text() == "once\n"
    lines = [line for line in api.lines() if line.get("source") == "pip"]
    assert lines


def test_a_failed_installation_is_the_reason_of_the_exit(serve, tmp_path):
    folder = tmp_path / "filled"
    folder.mkdir()
    (folder / "dependencies.sh").write_text("echo no compiler here\nexit 7\n")
    reason, message = serve("x = 1\n", wait=False, project=folder).cause_of_death()
    assert reason == "DependencyInstallFailed"
    assert "exited with status 7" in message
    assert "no compiler here" in message


def test_a_replica_that_is_stopped_while_it_installs_ends_at_once(serve, tmp_path):
    folder = tmp_path / "filled"
    folder.mkdir()
    (folder / "dependencies.sh").write_text("touch begun\nsleep 600\n")
    api = serve("x = 1\n", wait=False, project=folder)
    api.until((api.project / "begun").exists)
    api.process.terminate()
    assert api.process.wait(60) == 0
