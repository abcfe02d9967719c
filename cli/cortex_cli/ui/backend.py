"""The cluster of the page, and everything that is known of it."""

import threading
from collections.abc import Callable

from cortex_cli.connection import Cluster
from cortex_cli.ui.detail import Details
from cortex_cli.ui.log_book import LogBooks
from cortex_cli.ui.lookups import Lookups
from cortex_cli.ui.prometheus import Prometheus
from cortex_cli.ui.sampler import Sampler
from cortex_cli.ui.store import Store


class Backend:
    """The attributes other than `version` and `cluster` exist once `open` has succeeded.

    connect: opens the cluster; called again by each page until it succeeds. namespace: "" for all namespaces.
    prometheus: a server that has the history of the APIs, if any.
    version: a number that differs after each change of what is known. is_stopping: whether open pages must end their streams.
    """

    store: Store
    sampler: Sampler
    lookups: Lookups
    details: Details
    logs: LogBooks

    def __init__(
        self, connect: Callable[[], Cluster], namespace: str, prometheus: Prometheus | None = None
    ) -> None:
        self._connect = connect
        self.prometheus = prometheus
        self._namespace = namespace
        self._lock = threading.Lock()
        self.version = 0
        self.is_stopping: Callable[[], bool] = lambda: False
        self.cluster: Cluster | None = None

    def open(self) -> Cluster:
        """Connect and start the watches, if that has not succeeded yet. Raises ClusterError."""
        with self._lock:
            if self.cluster is None:
                cluster = self._connect()
                self.store = Store(cluster, self._namespace, self._count)
                self.sampler = Sampler(cluster, self.store, self._count)
                self.lookups = Lookups(self._count)
                self.details = Details(cluster, self.store, self.sampler, self.lookups)
                self.logs = LogBooks(cluster, self.store, self._count)
                self.store.start()
                self.sampler.start()
                self.cluster = cluster
        return self.cluster

    def close(self) -> None:
        """End the watches and all other threads."""
        if self.cluster is not None:
            self.store.close()
            self.sampler.close()
            self.lookups.close()
            self.logs.close()

    def _count(self) -> None:
        # Threads may overwrite each other's count; the version differs from before in any case.
        self.version += 1
