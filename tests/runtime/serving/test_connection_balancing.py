"""Which worker accepts the next connection, as one worker decides it."""

import asyncio
import socket
from time import perf_counter

from cortex_runtime.mailboxes import TURN, Mailboxes
from cortex_runtime.metrics.shared_memory import SharedMetrics
from cortex_runtime.serving.connection_balancing import Acceptor


async def test_a_worker_whose_event_loop_does_not_run_never_gets_the_turn():
    metrics, mail = SharedMetrics.create(2), Mailboxes.create(2)
    accepted = asyncio.Queue()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = Acceptor(listener, metrics, 0, mail, accepted.put_nowait)
        acceptor.start()

        async def passed_turns():
            """Connect, and return the messages to the other worker."""
            with socket.create_connection(listener.getsockname()):
                (await asyncio.wait_for(accepted.get(), 60)).close()
            return [message.kind for message in mail.receive(1)]

        # It has fewer connections, and would be the next one.
        metrics.free[1], metrics.connections[0] = 1.0, 1.0
        metrics.live[1] = perf_counter() - 60
        assert await passed_turns() == []
        metrics.live[1] = perf_counter() + 60
        assert await passed_turns() == [TURN]
        acceptor.stop()
