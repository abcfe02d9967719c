"""The development copy of an API as an object of the cluster: create, renew, read and delete it."""

import getpass
import json
import os
import socket
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from cortex_api import development
from cortex_api.contract import DEVELOPMENT_HOLDER_ANNOTATION, DEVELOPMENT_LABEL
from cortex_cli import apis
from cortex_cli.apis import API
from cortex_cli.connection import Cluster, ClusterError, Object, path
from cortex_cli.development.copy_manifest import annotations, development_copy

LIFETIME = timedelta(minutes=10)
"""How long a copy lives after its last renewal."""
_MANAGER = {"fieldManager": "cortex-dev"}


class Taken(ClusterError):
    """The copy was deleted or is used by another `cortex dev`."""


class CopyClient:
    """A client of one development copy.

    manifest: of the API that it copies. name: of the copy. holder: identifies this process, see `own_holder`.
    """

    def __init__(self, cluster: Cluster, manifest: Object, name: str, holder: str) -> None:
        self._cluster = cluster
        self._manifest = manifest
        self._holder = holder
        self._path = path(apis.resource(manifest["kind"]), cluster.namespace, name)
        self.name = name
        self._uid = ""
        self._generation = 0

    def create(self, take_over: bool) -> None:
        """Create the copy, or adopt one that a previous `cortex dev` of this user left behind.

        take_over: adopt also the copy of another user, whose `cortex dev` then ends. Raises ClusterError.
        """
        try:
            # No object has the resourceVersion 1, so this fails if an object of the name exists.
            self._apply({"resourceVersion": "1"})
        except ClusterError as error:
            if error.status != 409:
                raise
        else:
            return
        live = self._cluster.get(self._path)
        self._require_free(live, take_over)
        self._apply({"uid": live["metadata"]["uid"]})

    def change(self, manifest: Object) -> bool:
        """Apply a changed manifest of the API. Return whether it differs in what the copy has. Raises ClusterError."""
        previous, self._manifest = self._manifest, manifest
        generation = self._generation
        try:
            self._apply({"uid": self._uid})
        except ClusterError:
            self._manifest = previous
            raise
        return self._generation != generation

    def read(self) -> API:
        """Return the copy. Raises Taken, and ClusterError with status 404 if it does not exist."""
        live = self._cluster.get(self._path)
        if live["metadata"]["uid"] != self._uid or _holder(live) != self._holder:
            raise Taken(f"{self.name} was taken over by {_holder(live) or 'another user'}")
        return API(live)

    def renew(self) -> None:
        """Postpone the time at which the operator deletes the copy. Raises ClusterError."""
        metadata = {"uid": self._uid, "annotations": annotations(self._holder, self._expires())}
        self._send("PATCH", {"metadata": metadata}, "application/merge-patch+json")

    def delete(self) -> bool:
        """Delete the copy if it belongs to this process. Return whether it did. Raises ClusterError."""
        if not self._uid:
            return False
        try:
            self.read()
            preconditions = {"uid": self._uid}
            body = {"propagationPolicy": "Background", "preconditions": preconditions}
            self._send("DELETE", body, "application/json")
        except Taken:
            return False
        except ClusterError as error:
            if error.status != 404:
                raise
        return True

    def _apply(self, metadata: Object) -> None:
        manifest = development_copy(self._manifest, self.name, self._holder, self._expires())
        manifest["metadata"] |= metadata
        live = self._send("PATCH", manifest, "application/apply-patch+yaml", force="true")
        self._uid, self._generation = live["metadata"]["uid"], live["metadata"]["generation"]

    def _send(self, method: str, body: Object, content_type: str, **query: str) -> Object:
        headers = {"content-type": content_type}
        text = json.dumps(body).encode()
        response = self._cluster.request(method, self._path, _MANAGER | query, text, headers)
        return dict(json.loads(response.body))

    def _expires(self) -> datetime:
        """Return the expiry of a renewal now, by the clock of the cluster."""
        date = self._cluster.request("GET", "/version").headers.get("date")
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return now + LIFETIME

    def _require_free(self, live: Object, take_over: bool) -> None:
        kind, holder = self._manifest["kind"], _holder(live)
        if development.expires(self.name, live["metadata"].get("annotations") or {}) is None:
            raise ClusterError(
                f"{kind} {self.name} exists and is not a development copy; choose another name with --as NAME-dev"
            )
        copied = (live["metadata"].get("labels") or {}).get(DEVELOPMENT_LABEL)
        if copied != self._manifest["metadata"]["name"]:
            raise ClusterError(
                f"{kind} {self.name} is the development copy of {copied}; choose another name with --as NAME-dev"
            )
        if not take_over and not is_left_behind(holder):
            raise ClusterError(
                f"{kind} {self.name} is in use by {holder}; choose another name with --as NAME-dev, or end that `cortex dev`"
                " with --take-over"
            )


def own_holder() -> str:
    """Return an identification of this process: user, host and process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"


def is_left_behind(holder: str) -> bool:
    """Return whether a holder was a process of this user on this machine that has ended."""
    owner, _, process = own_holder().partition(" (process ")
    other, _, other_process = holder.partition(" (process ")
    number = other_process.rstrip(")")
    if other != owner or not number.isdigit():
        return False
    if other_process == process:
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _holder(live: Object) -> str:
    return str((live["metadata"].get("annotations") or {}).get(DEVELOPMENT_HOLDER_ANNOTATION, ""))
