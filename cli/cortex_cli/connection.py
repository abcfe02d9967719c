"""The way to a cluster for the commands that ask one: kubeconfig in, JSON and streams out, every failure one sentence.

What stands in a kubeconfig (contexts, certificates, exec plugins, token files) is the business of the `kubernetes` client
library; requests go through its connection pool.
"""

import functools
import json
import logging
import os
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
"""Exit codes: no cluster to ask, and one that doesn't answer us. 1 is a bad answer, 2 a wrong command line."""
_TIMEOUT = 30.0
_LOOPBACK = "localhost,127.0.0.0/8,::1"


class ClusterError(click.ClickException):
    """Why the cluster gave no answer, in one sentence. status: its HTTP status, or 0."""

    def __init__(self, message: str, exit_code: int = 1, status: int = 0) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]
        self.status = status


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: of the API server, or of what is behind its proxy."""

    status: int
    headers: dict[str, str]
    body: bytes


class Cluster:
    """One API server, and the namespace that is meant when none is named."""

    def __init__(self, configuration: "Configuration", namespace: str) -> None:
        from kubernetes.client import ApiClient

        # As kubectl does: no proxy of the environment stands between this machine and itself.
        configuration.no_proxy = ",".join(filter(None, [configuration.no_proxy, _LOOPBACK]))
        self._configuration = configuration
        self._pool = ApiClient(configuration).rest_client.pool_manager
        self.namespace = namespace

    @classmethod
    def open(cls, kubeconfig: str | None, context: str | None, namespace: str | None) -> Self:
        """The cluster that a kubeconfig names, as kubectl finds it; inside a pod, its own. Raises ClusterError."""
        from kubernetes.client import Configuration
        from kubernetes.config import ConfigException, kube_config, load_incluster_config

        files = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
        configuration = Configuration()
        said = _Said()
        logging.getLogger().addHandler(said)
        try:
            if not any(os.path.exists(os.path.expanduser(file)) for file in files.split(os.pathsep)):
                if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                    load_incluster_config(client_configuration=configuration)
                    return cls(configuration, namespace or _own_namespace())
                raise ClusterError(
                    f"there is no kubeconfig at {files}: set KUBECONFIG or --kubeconfig to the file of your cluster",
                    UNREACHABLE,
                )
            contexts, current = kube_config.list_kube_config_contexts(files)
            kube_config.load_kube_config(files, context, configuration)
        except ConfigException as error:
            raise ClusterError(
                f"the kubeconfig {files} can't be used: {_short(error)}", UNREACHABLE
            ) from error
        except (OSError, yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise ClusterError(
                f"the kubeconfig {files} can't be read: {_short(error)}", UNREACHABLE
            ) from error
        finally:
            logging.getLogger().removeHandler(said)
        if said.lines:
            raise ClusterError(
                f"the kubeconfig {files} gives no credentials: {'; '.join(said.lines)}; log in again",
                FORBIDDEN,
            )
        chosen = next((c for c in contexts if c["name"] == context), current)
        space = namespace or (chosen or {}).get("context", {}).get("namespace") or "default"
        return cls(configuration, space)

    def get(self, path: str, **query: str) -> Object:
        """A JSON object. Raises ClusterError, with status 404 when it isn't there."""
        found: Object = json.loads(self.request("GET", path, query).body)
        return found

    def list(self, resource: str, namespace: str | None = None, **query: str) -> list[Object]:
        """All objects of a kind ("v1/pods") in a namespace ("" for all; the default one when absent)."""
        space = self.namespace if namespace is None else namespace
        return list(self.get(path(resource, space), **query).get("items") or ())

    def request(
        self,
        method: str,
        where: str,
        query: Query | None = None,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = _TIMEOUT,
    ) -> Answer:
        """The answer of the API server; of a pod or service behind its proxy (".../proxy/..."), whatever its status.

        Raises ClusterError when the API server itself refuses.
        """
        response = self._send(method, where, query, body, headers, timeout)
        with _errors(self._server):
            content = response.read()
        if response.status >= 400 and (error := _refusal(where, response.status, content)):
            raise error
        return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, content)

    def stream(self, where: str, **query: str) -> Iterator[bytes]:
        """What comes in, piece by piece, until it ends. Raises ClusterError."""
        response = self._send("GET", where, query, None, None, None)
        with _errors(self._server):
            if response.status >= 400 and (error := _refusal(where, response.status, response.read())):
                raise error
            try:
                yield from response.stream(65536, decode_content=True)
            finally:
                response.release_conn()

    @property
    def _server(self) -> str:
        return str(self._configuration.host)

    def _send(
        self,
        method: str,
        where: str,
        query: Query | None,
        body: bytes | None,
        headers: dict[str, str] | None,
        timeout: float | None,
    ) -> Any:
        from urllib3 import Timeout

        url = self._server.rstrip("/") + where + (f"?{urlencode(query)}" if query else "")
        auth = self._configuration.auth_settings().get("BearerToken")
        sent = {"accept": "application/json", "user-agent": "cortex-cli", **(headers or {})}
        if auth and auth["value"]:
            sent["authorization"] = str(auth["value"])
        with _errors(self._server):
            return self._pool.request(
                method,
                url,
                body=body,
                headers=sent,
                timeout=Timeout(connect=10, read=timeout),
                retries=False,
                preload_content=False,
            )


def _refusal(where: str, status: int, content: bytes) -> ClusterError | None:
    """What an API server's answer with an error status means; None when a pod or service behind its proxy gave it."""
    try:
        said = json.loads(content)
        of_api_server = isinstance(said, dict) and said.get("kind") == "Status"
    except ValueError:
        said, of_api_server = {}, False
    if not of_api_server and "/proxy/" in where:
        return None
    message = str(said.get("message", "")) if of_api_server else content.decode(errors="replace").strip()
    if status == 401:
        return ClusterError(
            "the cluster doesn't accept who you are (401): the credentials in the kubeconfig have expired or are wrong;"
            " log in again",
            FORBIDDEN,
            status,
        )
    if status == 403:
        return ClusterError(f"you may not do this (403): {message}", FORBIDDEN, status)
    return ClusterError(message or f"the cluster answered {status}", 1, status)


class _errors:
    """Turns what the connection pool raises into a ClusterError."""

    def __init__(self, server: str) -> None:
        self._server = server

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        from urllib3 import exceptions

        if isinstance(error, exceptions.SSLError) or "SSL" in str(error or ""):
            raise ClusterError(
                f"no trusted connection to the cluster at {self._server}: {_short(error)}", UNREACHABLE
            ) from error
        if isinstance(error, exceptions.TimeoutError) and not isinstance(
            error, exceptions.NewConnectionError
        ):
            raise ClusterError(f"the cluster at {self._server} didn't answer in time", UNREACHABLE) from error
        if isinstance(error, exceptions.HTTPError):
            raise ClusterError(
                f"the cluster at {self._server} can't be reached: is it running, and is the kubeconfig its own?",
                UNREACHABLE,
            ) from error


class _Said(logging.Handler):
    """Gathers what the client library only logs: why a plugin of the kubeconfig gave no credentials."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(" ".join(record.getMessage().split()))


def path(resource: str, namespace: str = "", name: str = "", sub: str = "") -> str:
    """The URL path of "v1/pods" or "cortex.dev/v1alpha1/realtimeapis"."""
    group, plural = resource.rsplit("/", 1)
    base = f"/apis/{group}" if "/" in group else f"/api/{group}"
    space = f"/namespaces/{quote(namespace)}" if namespace else ""
    return "/".join(filter(None, [f"{base}{space}/{plural}", quote(name, safe=":"), sub]))


def asks_a_cluster(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which cluster; the command gets `cluster`."""

    @click.option("--kubeconfig", metavar="FILE", help="The kubeconfig; $KUBECONFIG or ~/.kube/config.")
    @click.option("--context", metavar="NAME", help="Its context; the current one.")
    @click.option("-n", "--namespace", metavar="NAME", help="The namespace; the context's, or default.")
    @functools.wraps(command)
    def wrapper(
        *arguments: Any, kubeconfig: str | None, context: str | None, namespace: str | None, **options: Any
    ) -> Any:
        try:
            return command(*arguments, cluster=Cluster.open(kubeconfig, context, namespace), **options)
        except KeyboardInterrupt:
            raise SystemExit(130) from None

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
