"""`python requirements/sbom.py FOLDER`: writes a bill of materials (CycloneDX 1.6, JSON) of each image, from what its lock pins.

The same lock gives the same bytes. What the base image brings along is not in it: that is the base image's own to say.
"""

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMAGES = {
    "cortex-operator": "operator",
    "cortex-runtime": "runtime",
    "cortex-runtime-tensorflow": "runtime-tensorflow",
}
"""Image to the lock that it is built from."""
_PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\]+?))?\s*(?:\\|$)", re.M
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "cortex.dev")


def components(lock: str) -> list[dict[str, Any]]:
    """A component for each pin. Its hashes are those of all distributions that may be installed for it."""
    pins = list(_PIN.finditer(lock))
    ends = [pin.start() for pin in pins[1:]] + [len(lock)]
    found = []
    for pin, end in zip(pins, ends, strict=True):
        name = re.sub(r"[-_.]+", "-", pin["name"]).lower()
        purl = f"pkg:pypi/{name}@{pin['version']}"
        component: dict[str, Any] = {
            "type": "library",
            "bom-ref": f"{purl}#{len(found)}",
            "name": name,
            "version": pin["version"],
            "purl": purl,
            "hashes": [
                {"alg": "SHA-256", "content": digest} for digest in _HASH.findall(lock[pin.start() : end])
            ],
        }
        if pin["marker"]:
            component["properties"] = [{"name": "cortex:marker", "value": pin["marker"]}]
        found.append(component)
    return found


def document(image: str, version: str, lock: str) -> dict[str, Any]:
    """The bill of materials of an image."""
    listed = components(lock)
    content = json.dumps([image, version, listed])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "bom-ref": image, "name": image, "version": version},
            "licenses": [{"license": {"id": "Apache-2.0"}}],
        },
        "components": listed,
    }


def main(folder: Path) -> int:
    """Exit status: 0."""
    text = (ROOT / "crds" / "cortex_api" / "__init__.py").read_text()
    version = re.findall(r'^__version__ = "(.+)"$', text, re.M)[0]
    folder.mkdir(parents=True, exist_ok=True)
    for image, lock in IMAGES.items():
        found = document(image, version, (ROOT / "requirements" / f"{lock}.txt").read_text())
        path = folder / f"{image}.cdx.json"
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{path}: {len(found['components'])} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
