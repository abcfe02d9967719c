"""`make demo` from end to end: a manifest becomes an API that names a flower, and nothing is left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 150


def processes_with(marker: str) -> list[str]:
    """Command lines of the processes that carry a marker in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and process.name != str(os.getpid()):
            try:
                environment = (process / "environ").read_bytes()
                if marker.encode() in environment:
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # It has ended, or is not ours.
    return found


def run_demo(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cortex_cli.demo"],
        env={**os.environ, "TMPDIR": str(tmp_path), "KEEP": "", **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


@pytest.mark.timeout(LIMIT + 30)
def test_the_demo_ends_with_a_prediction_and_leaves_nothing(tmp_path):
    marker = f"TMPDIR={tmp_path}"
    demo = run_demo(tmp_path)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "realtimeapi.cortex.dev/iris condition met" in demo.stdout
    assert '"label":"setosa"' in demo.stdout
    assert "API ready" in demo.stdout
    assert processes_with(marker) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(LIMIT + 30)
def test_a_demo_that_fails_shows_why_and_leaves_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    # Without curl on the PATH the last step fails, when everything is running.
    demo = run_demo(tmp_path, PATH=str(tmp_path / "empty"))
    assert demo.returncode == 1, demo.stdout
    assert "The demo failed: curl is not installed" in demo.stderr
    assert "The operator's last words" in demo.stderr
    assert processes_with(f"TMPDIR={tmp_path}") == []
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
