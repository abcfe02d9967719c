"""A child process that runs jobs, as the consumer sees it."""

from typing import Any

from cortex_runtime.jobs.job_process import JobProcess
from cortex_runtime.messages import JobCompleted, JobProgress


class Control:
    """The sending end of a control channel that leads nowhere."""

    def is_closing(self) -> bool:
        return False

    def writelines(self, lines: list[bytes]) -> None:
        pass


async def test_two_attempts_of_one_job_end_independently() -> None:
    """A consumer may receive a job again while the attempt that lost its lease still runs."""
    nothing: Any = None
    control: Any = Control()
    process = JobProcess(nothing, control, nothing, 0, capacity=2)
    process.is_ready = True
    first, second = (process.run("a", 1, "text/plain", b"") for _ in range(2))
    assert process.free == 0
    process.handle(JobProgress(first.id, 0.5, ""))
    assert (first.progress, second.progress) == (0.5, None)
    process.handle(JobCompleted(second.id, b"2"))
    assert process.free == 1
    assert not first.outcome.done()
    process.handle(JobCompleted(first.id, b"1"))
    assert (first.outcome.result(), second.outcome.result()) == (
        JobCompleted(first.id, b"1"),
        JobCompleted(second.id, b"2"),
    )
