"""What a user installs: locks that agree with each other, and a distribution that holds every package."""

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = {path.stem: path.read_text() for path in (ROOT / "requirements").glob("*.txt")}
PACKAGES = re.search(r"^PACKAGES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; (.*?))? \\$", re.MULTILINE)


def pins(lock: str) -> dict[tuple[str, str], str]:
    """(package, marker) to version."""
    return {(name, marker): version for name, version, marker in PIN.findall(LOCKS[lock])}


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.mark.parametrize("lock", sorted(set(LOCKS) - {"dev", "docs"}))
def test_the_image_has_the_tested_dependencies(lock: str) -> None:
    tested = pins("dev")
    own = pins(lock)
    assert own
    assert {key: tested.get(key) for key in own} == own


@pytest.mark.parametrize("lock", sorted(LOCKS))
def test_every_locked_package_has_hashes(lock: str) -> None:
    blocks = re.split(r"\n(?=\S)", LOCKS[lock].strip())
    assert [block for block in blocks if block[0] not in "#" and "--hash=sha256:" not in block] == []


def test_the_distribution_holds_every_package() -> None:
    listed = set(setup()["options"]["packages"].split())
    found = set()
    for folder in PACKAGES:
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join(init.parent.relative_to(ROOT / folder).parts))
    assert listed == found


def test_no_folder_shadows_a_module_of_the_standard_library() -> None:
    assert not [folder for folder in PACKAGES if (ROOT / folder / "__init__.py").exists()]


def test_data_files_of_packages_are_shipped() -> None:
    shipped = {
        path
        for folder in PACKAGES
        for package, patterns in setup()["options.package_data"].items()
        for pattern in patterns.split(",")
        for path in (ROOT / folder / package).glob(pattern.strip())
    }
    data = [
        str(path.relative_to(ROOT))
        for folder in PACKAGES
        for path in (ROOT / folder).glob("*/**/*")
        # Other processes may be writing bytecode, to files with temporary names.
        if "__pycache__" not in path.parts and path.is_file()
        if path.suffix not in {".py", ".pyi", ".yaml", ".proto", ".typed"} and path not in shipped
    ]
    assert data == []


def test_templates_are_shipped_complete() -> None:
    patterns = setup()["options.package_data"]["cortex_cli"].split(",")
    package = ROOT / "cli" / "cortex_cli"
    shipped = {path for pattern in patterns for path in package.glob(pattern.strip()) if path.is_file()}
    files = {path for path in (package / "templates").rglob("*") if path.is_file()}
    assert {path for path in files if "__pycache__" not in path.parts} <= shipped
