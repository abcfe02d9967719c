"""Services: forward TCP connections to a cluster IP and port to the ready pods of the service, in turn.

While none is ready except those that are being deleted, these get the connections, as from kube-proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging

from cortex_devcluster.client import Client, Informer
from cortex_devcluster.objects import nested, port_of, ready_condition

log = logging.getLogger(__name__)
CHUNK = 65536


class ServiceProxy:
    """Listens on the cluster IPs of all services."""

    def __init__(self, client: Client) -> None:
        self._services = Informer(client, "v1/services")
        self._pods = Informer(client, "v1/pods")
        self._servers: dict[tuple[str, int], asyncio.Server] = {}
        self._turns = itertools.count()
        self._changed = asyncio.Event()
        self._services.listen(lambda before, after: self._changed.set())

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for informer in (self._pods, self._services):
                    tasks.create_task(informer.run())
                    await informer.synced.wait()
                while True:
                    self._changed.clear()
                    await self._sync()
                    await self._changed.wait()
        finally:
            for server in self._servers.values():
                server.close()

    async def _sync(self) -> None:
        """Listen on the ports of all services, and on no others."""
        targets: dict[tuple[str, int], tuple[str, str]] = {}
        for service in self._services.list():
            address = nested(service, "spec.clusterIP")
            if address and address.startswith("127.") and nested(service, "spec.selector"):
                meta = service["metadata"]
                for port in nested(service, "spec.ports") or ():
                    targets[address, port["port"]] = (meta["namespace"], meta["name"])
        for place in set(self._servers) - set(targets):
            self._servers.pop(place).close()
        for place in set(targets) - set(self._servers):
            try:
                self._servers[place] = await self._listen(*place, *targets[place])
            except OSError as error:
                log.warning("service %s/%s cannot listen on %s:%d: %s", *targets[place], *place, error)

    async def _listen(self, address: str, port: int, namespace: str, name: str) -> asyncio.Server:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self._forward(reader, writer, namespace, name, port)
            except (ConnectionError, TimeoutError):
                pass  # One side closed the connection; the other connection is closed below.
            finally:
                writer.close()

        return await asyncio.start_server(serve, address, port)

    def backends(self, namespace: str, name: str, port: int) -> list[tuple[str, int]]:
        """Return the address and port of each ready pod of a service; if all of these are being deleted, of all of them."""
        service = self._services.get(namespace, name)
        if service is None:
            return []
        entry = next((p for p in service["spec"]["ports"] if p["port"] == port), None)
        if entry is None:
            return []
        selector = service["spec"]["selector"].items()
        found: dict[bool, list[tuple[str, int]]] = {True: [], False: []}
        for pod in self._pods.list(namespace):
            labels = pod["metadata"].get("labels") or {}
            address = nested(pod, "status.podIP")
            chosen = all(labels.get(key) == value for key, value in selector)
            if chosen and address and ready_condition(pod):
                is_terminating = "deletionTimestamp" in pod["metadata"]
                for container in pod["spec"]["containers"]:
                    with contextlib.suppress(ValueError):
                        found[is_terminating].append(
                            (address, port_of(entry.get("targetPort", port), container))
                        )
                        break
        return found[False] or found[True]

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, namespace: str, name: str, port: int
    ) -> None:
        choices = self.backends(namespace, name, port)
        for turn in itertools.islice(self._turns, len(choices)):
            try:
                upstream_reader, upstream_writer = await asyncio.open_connection(
                    *choices[turn % len(choices)]
                )
                break
            except OSError:
                continue  # The pod is terminating.
        else:
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_copy(reader, upstream_writer))
                tasks.create_task(_copy(upstream_reader, writer))
        except* (ConnectionError, TimeoutError):
            log.debug("service %s/%s: a connection broke", namespace, name)
        finally:
            upstream_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction of a connection until its end."""
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
