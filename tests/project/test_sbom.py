"""The bills of materials name every package that an image is built from, with what it may be built from."""

import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SBOM = runpy.run_path(str(ROOT / "requirements" / "sbom.py"))


@pytest.mark.parametrize(("image", "lock"), SBOM["IMAGES"].items())
def test_it_lists_every_package_of_the_lock(image: str, lock: str, tmp_path: Path) -> None:
    assert SBOM["main"](tmp_path) == 0
    found = json.loads((tmp_path / f"{image}.cdx.json").read_text())
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    pinned = [line.split()[0].split("==") for line in text.splitlines() if "==" in line.split(" ; ")[0]]
    assert pinned
    assert [[c["name"], c["version"]] for c in found["components"]] == pinned
    hashes = [digest["content"] for component in found["components"] for digest in component["hashes"]]
    assert hashes == re.findall(r"sha256:([0-9a-f]{64})", text)
    for component in found["components"]:
        assert component["purl"] == f"pkg:pypi/{component['name']}@{component['version']}"
        assert component["hashes"]
    references = [component["bom-ref"] for component in found["components"]]
    assert len(set(references)) == len(references)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    assert found["metadata"]["component"]["name"] == image
    dockerfile = (ROOT / f"Dockerfile.{image.split('-')[1]}").read_text()
    assert f"requirements/{lock}.txt" in dockerfile or f"REQUIREMENTS={lock}" in dockerfile


def test_packages_of_other_platforms_say_so() -> None:
    lock = f"a==1 ; sys_platform == 'win32' \\\n    --hash=sha256:{'0' * 64}\nB_c==2 \\\n    --hash=sha256:{'1' * 64}\n"
    first, second = SBOM["components"](lock)
    assert first["properties"] == [{"name": "cortex:marker", "value": "sys_platform == 'win32'"}]
    assert (second["name"], second.get("properties")) == ("b-c", None)
    assert [digest["content"] for digest in second["hashes"]] == ["1" * 64]


def test_the_same_lock_gives_the_same_document() -> None:
    lock = (ROOT / "requirements" / "operator.txt").read_text()
    assert SBOM["document"]("i", "1", lock) == SBOM["document"]("i", "1", lock)
    assert (
        SBOM["document"]("i", "1", lock)["serialNumber"] != SBOM["document"]("i", "2", lock)["serialNumber"]
    )
