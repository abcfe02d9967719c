"""The gRPC client of a stable replica's worker for the candidate. Imported only in APIs that serve gRPC."""

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc.aio

from cortex_runtime.candidate.client import RENEW_SECONDS, CandidateFailed
from cortex_runtime.grpc.calls import CallError
from cortex_runtime.grpc.status import StatusCode
from cortex_runtime.inference.grpc_service import path, status_of

_OPTIONS = [
    # A new channel must open a new connection, so that the Service selects a pod again.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
]
_OWN = frozenset({"content-type", "te", "host", "user-agent", "x-request-id"})
"""Names that are not forwarded, because a client sets them itself; neither are those that begin with "grpc-"."""


class GrpcClient:
    """Calls ModelInfer of the candidate. Messages are bytes. timeout: seconds in which calls on a renewed channel may end."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._timeout = timeout
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None
        self._renew_at = 0.0
        self._closing: set[asyncio.Task[None]] = set()

    async def infer(
        self,
        message: bytes,
        headers: Mapping[bytes, bytes],
        request_id: str,
        added: tuple[tuple[str, str], ...],
    ) -> bytes | CallError:
        """Return the response, or the error that the client gets: the request is wrong. Raises CandidateFailed.

        The caller limits the time. headers: metadata of the request. added: further metadata.
        """
        self._renew()
        metadata = (*_metadata(headers), ("x-request-id", request_id), *added)
        try:
            content: bytes = await self._call(message, metadata=metadata)
            return content
        except grpc.aio.AioRpcError as error:
            code, text = StatusCode[error.code().name], error.details() or ""
            if status_of(code) < 500 and code not in (StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED):
                return CallError(code, text)
            raise CandidateFailed(f"{code.name}: {text}"[:200]) from None

    def close(self) -> None:
        """Close the connection after its current calls."""
        if self._channel is not None:
            task = asyncio.get_running_loop().create_task(self._channel.close(self._timeout))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._channel = None

    def _renew(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._channel is None or now >= self._renew_at:
            self.close()
            self._channel = grpc.aio.insecure_channel(self._target, options=_OPTIONS)
            self._call = self._channel.unary_unary(path("ModelInfer"))
            self._renew_at = now + RENEW_SECONDS


def _metadata(headers: Mapping[bytes, bytes]) -> list[tuple[str, str | bytes]]:
    """Return the metadata to forward."""
    found: list[tuple[str, str | bytes]] = []
    for name, value in headers.items():
        text = name.decode()
        if text not in _OWN and not text.startswith("grpc-"):
            found.append((text, value if text.endswith("-bin") else value.decode()))
    return found
