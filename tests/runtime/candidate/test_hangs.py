"""A candidate that hangs is noticed by its silence, before any request has reached its own deadline. In virtual time."""

import asyncio
import selectors
from types import SimpleNamespace

import pytest

from cortex_runtime.candidate.breaker import Breaker
from cortex_runtime.candidate.client import CandidateFailed
from cortex_runtime.candidate.forwarding import Forwarder

SILENCE, FIRST_BYTE = 2.0, 60.0


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self):
        super().__init__(selectors.SelectSelector())
        self._now = 0.0
        select = self._selector.select

        def jump(timeout):
            assert timeout is not None, "the test waits for something that never happens"
            self._now += timeout
            return select(0)

        self._selector.select = jump

    def time(self):
        return self._now


@pytest.fixture
def run():
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        yield runner.run


def forwarder_and_breaker():
    breaker = Breaker(on_hang=lambda: forwarder.expire_pending())
    deadlines = SimpleNamespace(update=lambda: None, first_byte=FIRST_BYTE, silence=SILENCE)
    forwarder = Forwarder(None, breaker, deadlines, 60)
    return forwarder, breaker


async def failed_at(forwarder):
    """Send a request that is never answered. Return when the forwarder gave up."""
    with pytest.raises(CandidateFailed):
        await forwarder.within(asyncio.Event().wait)
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("waiting", [2, 5])
def test_several_requests_without_any_response_are_a_hang_and_all_of_them_end(run, waiting):
    async def hang():
        forwarder, breaker = forwarder_and_breaker()
        ends = await asyncio.gather(*(failed_at(forwarder) for _ in range(waiting)))
        return breaker.is_open, ends

    is_open, ends = run(hang())
    assert is_open
    assert all(SILENCE <= end <= 2 * SILENCE for end in ends)


def test_one_slow_request_is_not_a_hang(run):
    async def wait():
        forwarder, breaker = forwarder_and_breaker()
        return await failed_at(forwarder), breaker.is_open

    assert run(wait()) == (FIRST_BYTE, False)


def test_slow_requests_are_not_a_hang_while_others_are_answered(run):
    async def wait():
        forwarder, breaker = forwarder_and_breaker()
        slow = [asyncio.ensure_future(failed_at(forwarder)) for _ in range(3)]
        while asyncio.get_running_loop().time() < FIRST_BYTE - 1:
            await forwarder.within(lambda: asyncio.sleep(SILENCE / 2))
            assert not breaker.is_open
        return await asyncio.gather(*slow)

    assert run(wait()) == [FIRST_BYTE] * 3


def test_a_response_that_arrives_while_a_hang_is_suspected_is_not_a_hang(run):
    async def wait():
        forwarder, breaker = forwarder_and_breaker()
        slow = [asyncio.ensure_future(failed_at(forwarder)) for _ in range(2)]
        # It is suspected after the silence, and confirmed a moment later.
        await asyncio.sleep(SILENCE + 0.02)
        await forwarder.within(lambda: asyncio.sleep(0))
        await asyncio.sleep(SILENCE / 2)
        is_open = breaker.is_open
        return is_open, await asyncio.gather(*slow)

    is_open, ends = run(wait())
    assert not is_open
    # Nothing is answered after that, which is a hang.
    assert all(2 * SILENCE <= end < FIRST_BYTE for end in ends)
