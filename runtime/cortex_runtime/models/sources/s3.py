"""Buckets of S3 and compatible services, with boto3.

Endpoint, region and credentials are those of boto3: AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_ACCESS_KEY_ID, the role of a service
account. Without credentials the requests are anonymous.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import boto3
import botocore
from botocore import exceptions
from botocore.config import Config

from cortex_runtime.errors import StartError
from cortex_runtime.models.download_progress import Progress
from cortex_runtime.models.sources.base import Changed, Entry, Listing
from cortex_runtime.models.sources.transfer import ContentPart, TransientError, retry, transfer

_GOOGLE = "https://storage.googleapis.com"
_CHUNK = 256 * 1024
_MAX_OBJECTS = 100_000
_IS_MD5 = re.compile(r"[0-9a-f]{32}").fullmatch

_MISSING = ("NoSuchKey", "404", "NotFound", "NoSuchVersion")
_CHANGED = ("PreconditionFailed", "412", "InvalidRange", "416")
_BUSY = (
    "SlowDown",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
)
_WRONG_REGION = (
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "301",
)
_TEMPORARY = (
    exceptions.ConnectionError,
    exceptions.HTTPClientError,
    exceptions.IncompleteReadError,
    exceptions.ReadTimeoutError,
)
_NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.NoAuthTokenError,
)

_clients: dict[frozenset[tuple[str, str]], Any] = {}


class S3Source:
    """An object, or all objects below a prefix. gs:// uses the S3-compatible endpoint of Google Cloud Storage."""

    local: Path | None = None

    def __init__(self, location: str, wait: Callable[[float], object]) -> None:
        scheme, _, rest = location.partition("://")
        bucket, _, key = rest.partition("/")
        if not bucket:
            raise StartError("InvalidSpec", f"{location}: expected {scheme}://<bucket>/<key>")
        self.shown = location
        self._bucket = bucket
        self._key = key
        self._wait = wait
        self._base = ""
        try:
            self._client = _client(scheme)
        except (exceptions.BotoCoreError, ValueError) as error:
            raise StartError("InvalidSpec", f"{location}: failed to create an S3 client: {error}") from error

    def listing(self, below: str = "") -> Listing:
        """Return the objects below a prefix. Raises StartError (ModelNotFound, ModelAccessDenied, ModelUnavailable)."""
        try:
            if not below and self._key and not self._key.endswith("/") and (entry := self._object()):
                self._base = self._key.removesuffix(entry.name)
                return Listing((entry,), is_file=True)
            self._base = f"{self._key.rstrip('/')}/" if self._key else ""
            entries = [_entry(found, self._base) for found in self._below(self._base + below)]
        except Changed:
            entries = []
        if not entries and not below:
            raise StartError("ModelNotFound", f"{self.shown} does not exist")
        return Listing(tuple(entries))

    def fetch(self, entry: Entry, target: Path, progress: Progress) -> None:
        """Download one object. Raises StartError, and Changed if it has changed since it was listed."""
        where = f"{self.shown} ({entry.name})"

        @contextmanager
        def read(offset: int) -> Iterator[ContentPart]:
            arguments = {"Range": f"bytes={offset}-"} if offset else {}
            if entry.tag.startswith('"'):
                arguments["IfMatch"] = entry.tag
            with self._translate_errors(where):
                answer = self._client.get_object(
                    Bucket=self._bucket, Key=self._base + entry.name, **arguments
                )
                with closing(answer["Body"]) as body:
                    yield ContentPart(offset, body.iter_chunks(_CHUNK), _md5(answer))

        if entry.size == 0:
            target.touch(exist_ok=False)
            return
        transfer(read, target, entry.size, where, progress)

    def _object(self) -> Entry | None:
        """Return the object with exactly this key, or None. A listing by prefix returns it first."""
        name = self._key.rpartition("/")[2]
        try:
            page = self._call("list_objects_v2", Prefix=self._key, MaxKeys=1)
        except StartError as error:
            if error.reason != "ModelAccessDenied":
                raise
            # Reading an object does not require the permission to list the bucket.
            try:
                head = self._call("head_object", Key=self._key)
            except Changed:
                return None
            except StartError:
                raise error from None
            return Entry(name, head["ContentLength"], head["ETag"])
        found = page.get("Contents", ())
        return (
            _entry(found[0], self._key.removesuffix(name)) if found and found[0]["Key"] == self._key else None
        )

    def _below(self, prefix: str) -> Iterator[dict[str, Any]]:
        arguments: dict[str, str] = {}
        count = 0
        while True:
            page = self._call("list_objects_v2", Prefix=prefix, **arguments)
            for found in page.get("Contents", ()):
                # Keys that end with "/" mark folders.
                if found["Key"] != prefix and not found["Key"].endswith("/"):
                    count += 1
                    yield found
            if count > _MAX_OBJECTS:
                raise StartError("ModelInvalid", f"{self.shown} must contain at most {_MAX_OBJECTS} objects")
            if not page.get("IsTruncated"):
                return
            arguments = {"ContinuationToken": page["NextContinuationToken"]}

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        def attempt() -> dict[str, Any]:
            with self._translate_errors(self.shown):
                answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self._bucket, **arguments)
                return answer

        return retry(attempt, self.shown, self._wait)

    @contextmanager
    def _translate_errors(self, where: str) -> Iterator[None]:
        """Translate errors of boto3 to StartError (permanent), TransientError or Changed."""
        try:
            yield
        except exceptions.ClientError as error:
            raise self._translated(error, where) from error
        except exceptions.FlexibleChecksumError as error:
            raise TransientError(f"the checksum of the response is wrong: {error}", restart=True) from error
        except _NO_CREDENTIALS as error:
            raise StartError("ModelAccessDenied", f"{where}: {error}") from error
        except exceptions.ParamValidationError as error:
            raise StartError("InvalidSpec", f"{where}: {error}") from error
        except _TEMPORARY as error:
            raise TransientError(str(error)) from error
        except exceptions.BotoCoreError as error:
            raise StartError("ModelUnavailable", f"{where}: {error}") from error

    def _translated(self, error: exceptions.ClientError, where: str) -> Exception:
        code = str(error.response.get("Error", {}).get("Code", ""))
        metadata = error.response.get("ResponseMetadata", {})
        status = metadata.get("HTTPStatusCode", 0)
        endpoint = self._client.meta.endpoint_url
        text = error.response.get("Error", {}).get("Message") or f"status {status}"
        if code in _CHANGED:
            return Changed()
        if code == "NoSuchBucket":
            return StartError("ModelNotFound", f"{where}: bucket {self._bucket} does not exist at {endpoint}")
        if code in _MISSING or status == 404:
            return Changed()
        if code in _BUSY or status >= 500 or status == 429:
            after = metadata.get("HTTPHeaders", {}).get("retry-after", "")
            return TransientError(
                f"{endpoint} responded {code}: {text}", float(after) if after.isdecimal() else None
            )
        if code in _WRONG_REGION or status == 301:
            return StartError(
                "ModelAccessDenied", f"{where}: the bucket is in another region ({text}); set AWS_REGION"
            )
        if status in (401, 403):
            return StartError(
                "ModelAccessDenied",
                f"{where}: access denied by {endpoint} ({code}: {text}); check AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or the service account's role, which needs s3:ListBucket and s3:GetObject",
            )
        return StartError("ModelUnavailable", f"{where}: {endpoint} responded {code}: {text}")


def _client(scheme: str) -> Any:
    """Return a client for the current environment variables."""
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    key = frozenset({**aws, "scheme": scheme}.items())
    if (known := _clients.get(key)) is not None:
        return known
    session = boto3.session.Session()
    endpoint = aws.get("AWS_ENDPOINT_URL_S3") or aws.get("AWS_ENDPOINT_URL")
    if endpoint is None and scheme == "gs":
        endpoint = _GOOGLE
    is_amazon = endpoint is None or "amazonaws.com" in endpoint
    credentials = session.get_credentials()
    client = session.client(
        "s3",
        region_name=session.region_name or "us-east-1",
        endpoint_url=endpoint,
        config=Config(
            # Other servers have no host name for each bucket.
            s3={"addressing_style": "auto" if is_amazon else "path"},
            signature_version=None if credentials else botocore.UNSIGNED,
            connect_timeout=10,
            read_timeout=20,
            max_pool_connections=32,
            # transfer.py counts the attempts.
            retries={"total_max_attempts": 1},
        ),
    )
    if credentials is not None:
        # Without credentials, the next call may find some.
        _clients[key] = client
    return client


def _entry(found: dict[str, Any], base: str) -> Entry:
    return Entry(
        found["Key"].removeprefix(base), found["Size"], found.get("ETag") or str(found["LastModified"])
    )


def _md5(answer: dict[str, Any]) -> str | None:
    """Return the MD5 of an object if its ETag is one: not for multipart uploads and objects with other encryption keys."""
    etag = str(answer.get("ETag", "")).strip('"')
    encrypted = "kms" in answer.get("ServerSideEncryption", "") or answer.get("SSECustomerAlgorithm")
    return etag if _IS_MD5(etag) and not encrypted else None
