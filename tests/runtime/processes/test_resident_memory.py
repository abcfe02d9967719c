"""The resident memory of a process grows with what it uses."""

from cortex_runtime.processes.resident_memory import resident_bytes


def test_memory_that_is_used_counts():
    before = resident_bytes()
    used = bytearray(b"x" * 50_000_000)
    after = resident_bytes()
    assert before is not None
    assert after is not None
    assert 45_000_000 < after - before < 200_000_000
    del used
