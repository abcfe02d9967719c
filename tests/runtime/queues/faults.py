"""A backend that fails at a chosen step of a job's life, like a network or a killed process."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from cortex_runtime.queues.base import Backend, Unreachable

STEPS = (
    "read",
    "find",
    "write",
    "put",
    "get",
    "remove",
    "publish",
    "take",
    "renew",
    "release",
    "settle",
    "withdraw",
)


class Killed(BaseException):
    """The process has exited."""


class Faulty:
    """A backend that counts its calls and replaces one of them.

    fault: called with the number and name of each call, and the call itself.
    """

    def __init__(
        self, backend: Backend, fault: Callable[[int, str, Callable[[], Awaitable[Any]]], Awaitable[Any]]
    ) -> None:
        self._backend = backend
        self._fault = fault
        self._count = itertools.count()
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        original = getattr(self._backend, name)
        if name not in STEPS:
            return original

        async def call(*arguments: Any, **more: Any) -> Any:
            number = next(self._count)
            self.calls.append(name)
            return await self._fault(number, name, lambda: original(*arguments, **more))

        return call


async def nothing(number: int, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
    """No fault."""
    return await call()


def unreachable_at(step: int) -> Any:
    """The request is lost once."""

    async def fault(number: int, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if number == step:
            raise Unreachable("the network is down")
        return await call()

    return fault


def answer_lost_at(step: int) -> Any:
    """The operation succeeds, and its response is lost."""

    async def fault(number: int, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        result = await call()
        if number == step:
            raise Unreachable("the answer is lost")
        return result

    return fault


def killed_after(step: int) -> Any:
    """The process exits after the call, and does nothing more."""
    dead = False

    async def fault(number: int, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        nonlocal dead
        if dead:
            raise Killed
        result = await call()
        if number == step:
            dead = True
            raise Killed
        return result

    return fault
