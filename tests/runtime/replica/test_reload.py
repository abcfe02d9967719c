"""The files of a project that `--reload` watches."""

import subprocess
import sys

from watchfiles import Change

from cortex_runtime.replica import reload

SOURCE = """
import sys
from pathlib import Path
from cortex_runtime.replica.reload import snapshot
print(*(Path(file).name for file in snapshot({Path(sys.argv[1])})))
"""


def test_the_file_of_the_log_is_not_watched(tmp_path):
    (tmp_path / "handler.py").touch()
    (tmp_path / "data.txt").touch()
    log = tmp_path / "run.txt"
    with log.open("wb") as output:
        subprocess.run([sys.executable, "-c", SOURCE, str(tmp_path)], stdout=output, check=True)
    assert sorted(log.read_text().split()) == ["data.txt", "handler.py"]


def test_the_manifest_is_not_watched(tmp_path):
    manifest = tmp_path / "api.yaml"
    for name in ("handler.py", "api.yaml", "api.yaml.txt"):
        (tmp_path / name).touch()
    watched = reload.snapshot({tmp_path}, manifest)
    assert sorted(watched) == [str(tmp_path / name) for name in ("api.yaml.txt", "handler.py")]
    assert not reload._Filter(manifest)(Change.modified, str(manifest))
