"""Builds the queue of one API from CORTEX_QUEUE_URL, without connecting to it.

- `nats://HOST:PORT` (or `tls://`; several servers separated by commas): NATS JetStream, 2.11 or newer. User and password
  may be part of the URL. `?replicas=3` keeps three copies on a cluster, `?credentials=FILE` names a file of NATS
  credentials.
- `sqs://BUCKET/PREFIX`: SQS for the messages, and S3 with that bucket for payloads, records and results, all below PREFIX.
  Credentials and endpoints come from the environment variables of boto3 (AWS_ENDPOINT_URL_SQS, AWS_ENDPOINT_URL_S3, ...), or
  from the URL: `?region=eu-west-1&sqs=http://host:1&s3=http://host:2`.
"""

from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from cortex_api import Document, units
from cortex_api.contract import QUEUE_URL_VARIABLE, full_queue_name
from cortex_runtime.errors import StartError
from cortex_runtime.queues.base import Backend, Channel
from cortex_runtime.queues.queue import Queue
from cortex_runtime.queues.records import Settings

_HOOK_SLACK = 30.0


def connect(url: str, document: Document) -> Queue:
    """Return the queue of an AsyncAPI. Raises StartError (InvalidSpec) for a URL of any other form."""
    spec = document.async_spec
    settings = Settings(
        spec.queue.max_attempts, units.seconds(spec.queue.lease), units.seconds(spec.queue.retention)
    )
    # One delivery of a webhook, with a margin.
    hook_lease = _HOOK_SLACK + (units.seconds(spec.webhook.timeout) if spec.webhook is not None else 0.0)
    name = full_queue_name(document.namespace, spec.queue.name or document.name)
    return Queue(backend_of(url, name, {"jobs": settings.lease, "hooks": hook_lease}), settings)


def backend_of(url: str, name: str, leases: Mapping[Channel, float]) -> Backend:
    """Return the backend of the queue `name`. leases: of the messages of each channel, in seconds. Raises StartError."""
    if not url:
        raise StartError("InvalidSpec", f"{QUEUE_URL_VARIABLE} must be set to the URL of the queue")
    parts = urlsplit(url)
    given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if parts.scheme in ("nats", "tls"):
        _check(parts.scheme, given, ("replicas", "credentials"))
        from cortex_runtime.queues.nats import NatsBackend

        servers = [
            server if "://" in server else f"{parts.scheme}://{server}"
            for server in url.split("?")[0].rstrip("/").split(",")
        ]
        replicas = given.get("replicas", "1")
        if not replicas.isdigit() or not 1 <= int(replicas) <= 5:
            raise StartError("InvalidSpec", f"{QUEUE_URL_VARIABLE}: replicas must be 1 to 5; got {replicas}")
        return NatsBackend(servers, name, leases, int(replicas), given.get("credentials"))
    if parts.scheme == "sqs":
        _check(parts.scheme, given, ("region", "sqs", "s3"))
        from cortex_runtime.queues.sqs import SqsBackend

        if not parts.netloc:
            raise StartError(
                "InvalidSpec", f"{QUEUE_URL_VARIABLE}: expected sqs://BUCKET/PREFIX; the bucket is missing"
            )
        prefix = "/".join(part for part in (parts.path.strip("/"), name) if part)
        endpoints = {service: value for service, value in given.items() if service != "region"}
        return SqsBackend(parts.netloc, prefix, name, leases, given.get("region"), endpoints)
    raise StartError("InvalidSpec", f"{QUEUE_URL_VARIABLE} must begin with nats://, tls:// or sqs://")


def _check(scheme: str, given: dict[str, str], known: tuple[str, ...]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise StartError(
            "InvalidSpec",
            f"{QUEUE_URL_VARIABLE}: unknown parameter {', '.join(unknown)}; {scheme}:// accepts {', '.join(known)}",
        )
