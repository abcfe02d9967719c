"""The subresource `portforward` of pods, over WebSockets (subprotocol v4.channel.k8s.io): one TCP connection for each port.

Each message starts with the number of its channel: 2n for the data of the nth port, 2n + 1 for its errors. The first message of a
channel is the number of the port. kubectl uses SPDY within a WebSocket, which this does not support.
"""

from __future__ import annotations

import asyncio

from starlette.websockets import WebSocket, WebSocketDisconnect

from cortex_devcluster.apiserver.registry import Registry
from cortex_devcluster.objects import nested

PROTOCOL = "v4.channel.k8s.io"
_PART = 1 << 16


async def forward_ports(socket: WebSocket, registry: Registry) -> None:
    """Forward the ports in the query until either side closes a connection or the WebSocket."""
    if PROTOCOL not in socket.scope["subprotocols"]:
        await socket.close()
        return
    key = "/pods", socket.path_params["namespace"], socket.path_params["name"]
    pod = registry.store.get(*key)
    address = nested(pod or {}, "status.podIP")
    if not address:
        await socket.close()
        return
    await socket.accept(PROTOCOL)
    ports = [int(port) for text in socket.query_params.getlist("ports") for port in text.split(",")]
    writers: list[asyncio.StreamWriter | None] = []
    async with asyncio.TaskGroup() as tasks:
        for number, port in enumerate(ports):
            for channel in (2 * number, 2 * number + 1):
                await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
            try:
                reader, writer = await asyncio.open_connection(address, port)
            except OSError as error:
                text = f"an error occurred forwarding {port}: {error.strerror}".encode()
                await socket.send_bytes(bytes([2 * number + 1]) + text)
                writers.append(None)
                continue
            writers.append(writer)
            tasks.create_task(_send(socket, reader, 2 * number))
        try:
            while True:
                message = await socket.receive_bytes()
                if (to := writers[message[0] // 2]) is not None:
                    to.write(message[1:])
                    await to.drain()
        except (WebSocketDisconnect, OSError):
            pass
        finally:
            for each in writers:
                if each is not None:
                    each.close()


async def _send(socket: WebSocket, reader: asyncio.StreamReader, channel: int) -> None:
    """Send what a pod sends, and close the WebSocket at its end."""
    try:
        while part := await reader.read(_PART):
            await socket.send_bytes(bytes([channel]) + part)
        await socket.close()
    except (OSError, RuntimeError, WebSocketDisconnect):
        return  # The other side has closed it already.
