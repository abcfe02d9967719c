"""Connect to a cluster: load the kubeconfig, send requests, and turn each failure into a one-line error.

The `kubernetes` client library handles the kubeconfig (contexts, certificates, exec plugins, token files). Requests use its
connection pool.
"""

import contextlib
import functools
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

import click
import yaml

if TYPE_CHECKING:
    from kubernetes.client import Configuration

Object = dict[str, Any]
Query = dict[str, str] | list[tuple[str, str]]
UNREACHABLE, FORBIDDEN = 3, 4
"""Exit codes: cluster unreachable, and access denied. 1 is any other error, 2 an invalid command line."""
_TIMEOUT = 30.0
_QUIET = 2.0
"""Seconds after which a command says that it waits for the first answer of the cluster."""
_MAX_CONNECTIONS = 32
_LOOPBACK = "localhost,127.0.0.0/8,::1"


class ClusterError(click.ClickException):
    """A request to the cluster failed.

    status: the HTTP status, or 0 without a response.
    """

    def __init__(self, message: str, exit_code: int = 1, status: int = 0) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]
        self.status = status


@dataclass(frozen=True)
class Response:
    """An HTTP response of the API server, or of a pod or Service behind its proxy."""

    status: int
    headers: dict[str, str]
    body: bytes


class Cluster:
    """A client of one API server, with a default namespace.

    context: the name of the context in the kubeconfig, if any. is_local: whether it consists of programs of `cortex run`.
    reports_wait: whether a slow first answer is reported on stderr, once.
    """

    is_local = False
    reports_wait = False

    def __init__(self, configuration: "Configuration", namespace: str, context: str = "") -> None:
        from kubernetes.client import ApiClient

        # Like kubectl, never use a proxy for loopback addresses.
        configuration.no_proxy = ",".join(filter(None, [configuration.no_proxy, _LOOPBACK]))
        configuration.connection_pool_maxsize = _MAX_CONNECTIONS
        self.configuration = configuration
        self._pool = ApiClient(configuration).rest_client.pool_manager
        self.namespace = namespace
        self.context = context

    @classmethod
    def open(cls, kubeconfig: str | None, context: str | None, namespace: str | None) -> Self:
        """Connect to the cluster of a kubeconfig, which is found like in kubectl, or of this pod. Raises ClusterError."""
        from kubernetes.client import Configuration
        from kubernetes.config import ConfigException, kube_config, load_incluster_config

        files = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        configuration = Configuration()
        errors = _ErrorLog()
        logging.getLogger().addHandler(errors)
        try:
            if not any(os.path.exists(os.path.expanduser(file)) for file in files.split(os.pathsep)):
                if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                    load_incluster_config(client_configuration=configuration)
                    return cls(configuration, namespace or _own_namespace())
                raise ClusterError(
                    f"kubeconfig {files} does not exist; set KUBECONFIG or --kubeconfig to the kubeconfig of your cluster",
                    UNREACHABLE,
                )
            contexts, current = kube_config.list_kube_config_contexts(files)
            if context is not None and context not in (names := [each["name"] for each in contexts]):
                raise ClusterError(
                    f"context {context} does not exist in kubeconfig {files}; it contains {', '.join(names)}",
                    UNREACHABLE,
                )
            kube_config.load_kube_config(files, context, configuration)
        except ConfigException as error:
            raise ClusterError(f"kubeconfig {files} is not valid: {_short(error)}", UNREACHABLE) from error
        except (OSError, yaml.YAMLError, ValueError) as error:
            raise ClusterError(f"kubeconfig {files} cannot be read: {_short(error)}", UNREACHABLE) from error
        except (TypeError, AttributeError, KeyError) as error:
            # The client library does not check the types of all fields.
            text = f"kubeconfig {files} is not valid: it must have clusters, contexts and users; see kubectl config view"
            raise ClusterError(text, UNREACHABLE) from error
        finally:
            logging.getLogger().removeHandler(errors)
        if errors.lines:
            raise ClusterError(
                f"no credentials from kubeconfig {files}: {'; '.join(errors.lines)}; log in again",
                FORBIDDEN,
            )
        chosen = next((c for c in contexts if c["name"] == context), current)
        space = namespace or (chosen or {}).get("context", {}).get("namespace") or "default"
        return cls(configuration, space, str((chosen or {}).get("name", "")))

    def get(self, path: str, **query: str) -> Object:
        """Return an object. Raises ClusterError, with status 404 if the object does not exist."""
        content: Object = json.loads(self.request("GET", path, query).body)
        return content

    def list(self, resource: str, namespace: str | None = None, **query: str) -> list[Object]:
        """Return all objects of a resource ("v1/pods") in a namespace.

        namespace: "" for all namespaces; None for the default namespace.
        """
        space = self.namespace if namespace is None else namespace
        return list(self.get(path(resource, space), **query).get("items") or ())

    def request(
        self,
        method: str,
        url_path: str,
        query: Query | None = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = _TIMEOUT,
    ) -> Response:
        """Send a request to the API server, or through it to a pod or Service (".../proxy/...").

        timeout: in seconds.
        Returns the response of a pod or Service with any status. Raises ClusterError if the API server returns an error.
        """
        response = self._send(method, url_path, query, body, headers, timeout)
        with _translate_errors(self.server):
            content = response.read()
        if response.status >= 400 and (error := _api_server_error(url_path, response.status, content)):
            raise error
        return Response(response.status, {k.lower(): v for k, v in response.headers.items()}, content)

    def stream(self, url_path: str, **query: str) -> Iterator[bytes]:
        """Send GET and yield the chunks of the response body. Raises ClusterError."""
        yield from self.open_stream(url_path, query)

    def open_stream(self, url_path: str, query: Query, timeout: float | None = None) -> "Stream":
        """Send GET and return the response body, which can be closed from another thread. Raises ClusterError.

        timeout: the longest time without data, in seconds.
        """
        response = self._send("GET", url_path, query, None, None, timeout)
        with _translate_errors(self.server):
            if response.status >= 400 and (
                error := _api_server_error(url_path, response.status, response.read())
            ):
                raise error
        return Stream(response, self.server)

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return str(self.configuration.host)

    def authorization(self) -> dict[str, str]:
        """Return the headers that authenticate the user. May run a credential plugin."""
        auth = self.configuration.auth_settings().get("BearerToken")
        return {"authorization": str(auth["value"])} if auth and auth["value"] else {}

    def proxy(self) -> str | None:
        """Return the URL of the proxy for the API server, or None."""
        from kubernetes.client.rest import should_bypass_proxies

        proxy, no_proxy = self.configuration.proxy, self.configuration.no_proxy
        return proxy if proxy and not should_bypass_proxies(self.server, no_proxy or "") else None

    def _send(
        self,
        method: str,
        url_path: str,
        query: Query | None,
        body: bytes | None,
        headers: dict[str, str] | None,
        timeout: float | None,
    ) -> Any:
        from urllib3 import Timeout

        url = self.server.rstrip("/") + url_path + (f"?{urlencode(query)}" if query else "")
        all_headers = {"accept": "application/json", "user-agent": "cortex-cli", **(headers or {})}
        all_headers |= self.authorization()
        with _translate_errors(self.server), self._wait_reported():
            return self._pool.request(
                method,
                url,
                body=body,
                headers=all_headers,
                timeout=Timeout(connect=10, read=timeout),
                retries=False,
                preload_content=False,
            )

    @contextlib.contextmanager
    def _wait_reported(self) -> Iterator[None]:
        """Report on stderr that the cluster does not answer yet, unless it has answered before."""
        if not self.reports_wait:
            yield
            return
        self.reports_wait = False
        text = f"Waiting for the cluster at {self.server} ..."
        timer = threading.Timer(_QUIET, click.echo, (text,), {"err": True})
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


class Stream:
    """The chunks of a response body."""

    def __init__(self, response: Any, server: str) -> None:
        self._response = response
        self._server = server

    def __iter__(self) -> Iterator[bytes]:
        """Yield the chunks. Raises ClusterError if the connection breaks."""
        with _translate_errors(self._server):
            try:
                yield from self._response.stream(65536, decode_content=True)
            finally:
                self._response.release_conn()

    def close(self) -> None:
        """End the stream, also while another thread waits for a chunk."""
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            self._response.shutdown()


def _api_server_error(url_path: str, status: int, content: bytes) -> ClusterError | None:
    """Return the error of a response with an error status, or None if a pod or Service behind the proxy sent it."""
    try:
        parsed = json.loads(content)
        is_from_api_server = isinstance(parsed, dict) and parsed.get("kind") == "Status"
    except ValueError:
        parsed, is_from_api_server = {}, False
    if not is_from_api_server and "/proxy/" in url_path:
        return None
    message = (
        str(parsed.get("message", "")) if is_from_api_server else content.decode(errors="replace").strip()
    )
    if status == 401:
        return ClusterError(
            "authentication failed (401): the credentials in the kubeconfig are invalid or have expired; log in again",
            FORBIDDEN,
            status,
        )
    if status == 403:
        return ClusterError(f"permission denied (403): {message}", FORBIDDEN, status)
    return ClusterError(message or f"the cluster returned status {status}", 1, status)


class _translate_errors:
    """Turn exceptions of the connection pool into ClusterError."""

    def __init__(self, server: str) -> None:
        self._server = server

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        from urllib3 import exceptions

        if isinstance(error, exceptions.SSLError) or "SSL" in str(error or ""):
            raise ClusterError(
                f"TLS connection to the cluster at {self._server} failed: {_short(error)}", UNREACHABLE
            ) from error
        if isinstance(error, exceptions.TimeoutError) and not isinstance(
            error, exceptions.NewConnectionError
        ):
            raise ClusterError(f"request to the cluster at {self._server} timed out", UNREACHABLE) from error
        if isinstance(error, exceptions.HTTPError):
            raise ClusterError(
                f"the cluster at {self._server} is unreachable; check that it runs and that the kubeconfig is correct",
                UNREACHABLE,
            ) from error


class _ErrorLog(logging.Handler):
    """Collect the errors that the client library only logs, such as the failure of a credential plugin."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Store the message of a record."""
        self.lines.append(" ".join(record.getMessage().split()))


def path(resource: str, namespace: str = "", name: str = "", sub: str = "") -> str:
    """Return the URL path of a resource such as "v1/pods" or "cortex.dev/v1alpha1/realtimeapis"."""
    group, plural = resource.rsplit("/", 1)
    base = f"/apis/{group}" if "/" in group else f"/api/{group}"
    space = f"/namespaces/{quote(namespace)}" if namespace else ""
    return "/".join(filter(None, [f"{base}{space}/{plural}", quote(name, safe=":"), sub]))


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select a cluster. The command receives a Cluster as `cluster`."""

    @cluster_selection_options
    @functools.wraps(command)
    def wrapper(*arguments: Any, open_cluster: Callable[[], Cluster], **options: Any) -> Any:
        return command(*arguments, cluster=open_cluster(), **options)

    return wrapper


def cluster_selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select a cluster. The command receives `open_cluster`, which connects or raises ClusterError."""

    @click.option(
        "--kubeconfig",
        metavar="FILE",
        help="Path of the kubeconfig.  [default: $KUBECONFIG or ~/.kube/config]",
    )
    @click.option("--context", metavar="NAME", help="Context in the kubeconfig.  [default: current context]")
    @click.option(
        "-n",
        "--namespace",
        metavar="NAME",
        help="Namespace.  [default: namespace of the context, or default]",
    )
    @functools.wraps(command)
    def wrapper(
        *arguments: Any, kubeconfig: str | None, context: str | None, namespace: str | None, **options: Any
    ) -> Any:
        def opener() -> Cluster:
            cluster = Cluster.open(kubeconfig, context, namespace)
            cluster.reports_wait = True
            return cluster

        return command(*arguments, open_cluster=opener, **options)

    return wrapper


def _own_namespace() -> str:
    try:
        with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as file:
            return file.read().strip()
    except OSError:
        return "default"


def _short(error: BaseException | None) -> str:
    words = " ".join(str(error).split())
    return words or type(error).__name__
