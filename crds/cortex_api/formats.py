"""Formats of strings: names, labels and references of images as Kubernetes defines them, and URLs, percentages and the like.

A value with a wrong format would be refused only later, when the operator creates an object with it or a node starts the pod.
The rules are those of Kubernetes (apimachinery/pkg/util/validation) and, for images, of the OCI distribution. The patterns mean
the same in Go (used by the API server) and in Python with re.fullmatch.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_NAME_OF_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_HOST = r"([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])(:[0-9]+)?"
_REPOSITORY = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*"
_TAG = r":[0-9A-Za-z_][0-9A-Za-z_.-]{0,127}"
_DIGEST = r"@[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}"
_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class Format:
    """A format of strings. In Annotated[str, FORMAT], it validates a field and is its schema.

    name: with its article. allowed: what a valid value consists of. pattern: of the whole value. max_length: in characters.
    """

    name: str
    allowed: str
    pattern: str
    max_length: int

    def problem(self, value: str) -> str | None:
        """Return what is wrong with a value and what is allowed, or None if it is valid."""
        shown = value if len(value) <= _LONGEST_SHOWN else f"{value[: _LONGEST_SHOWN - 3]}..."
        if len(value) > self.max_length:
            return f'"{shown}" is too long for {self.name}: at most {self.max_length} characters'
        if re.fullmatch(self.pattern, value) is None:
            return f'"{shown}" is not {self.name}; use {self.allowed}'
        return None

    def check(self, value: str) -> str:
        """Return a valid value. Raises ValueError if it is invalid."""
        if (problem := self.problem(value)) is not None:
            raise ValueError(problem)
        return value

    def schema(self) -> dict[str, Any]:
        """Return the schema of a value."""
        return {"type": "string", "maxLength": self.max_length, "pattern": self.pattern}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the validator of a field."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the schema of a field."""
        return self.schema()


IMAGE = Format(
    "an image reference",
    "[REGISTRY/]NAME[:TAG][@DIGEST] without spaces, NAME in lowercase, for example registry.example.com/team/model:1.2",
    rf"^({_HOST}/)?{_REPOSITORY}({_TAG})?({_DIGEST})?$",
    1024,
)
OBJECT_NAME = Format(
    "a name of a Kubernetes object",
    "lowercase letters, digits, '-' and '.', starting and ending with a letter or digit",
    f"^{_SUBDOMAIN}$",
    253,
)
LABEL_NAME = Format(
    "a name that Kubernetes accepts here",
    "lowercase letters, digits and '-', starting and ending with a letter or digit",
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    63,
)
KEY = Format(
    "a key of a ConfigMap or Secret",
    "letters, digits, '-', '_' and '.', not starting with '..'",
    r"^\.?[-_A-Za-z0-9][-._A-Za-z0-9]*$",
    253,
)
VARIABLE = Format(
    "a name of an environment variable",
    "printable ASCII characters other than '=', for example LOG_LEVEL",
    "^[ -<>-~]+$",
    256,
)
LABEL_KEY = Format(
    "a key of a label",
    "[PREFIX/]NAME: NAME at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit,"
    " PREFIX a domain in lowercase",
    f"^({_SUBDOMAIN}/)?{_NAME_OF_KEY}$",
    317,
)
LABEL_VALUE = Format(
    "a value of a label",
    "letters, digits, '-', '_' and '.', starting and ending with a letter or digit, or an empty string",
    r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
    63,
)
EXTENDED_RESOURCE = Format(
    "a name of an extended resource",
    "DOMAIN/NAME, for example nvidia.com/gpu or nvidia.com/mig-1g.10gb",
    f"^{_SUBDOMAIN}/{_NAME_OF_KEY}$",
    253,
)
PORT_NAME = Format(
    "a name of a port",
    "at most 15 lowercase letters, digits and single '-', with at least one letter",
    r"^([0-9]+(-[0-9]+)*-?)?[a-z][a-z0-9]*(-[a-z0-9]+)*$",
    15,
)
# A segment of a path other than "." and "..", which routes must not contain.
_SEGMENT = r"(\.{0,2}[A-Za-z0-9_~-]|\.{3})[A-Za-z0-9._~-]*"
ENDPOINT = Format(
    "a path prefix",
    "/ and segments of letters, digits, '.', '_', '~' and '-' other than '.' and '..', for example /team/iris",
    f"^/{_SEGMENT}(/{_SEGMENT})*/?$",
    256,
)
MODEL_NAME = Format("a name of a model", "letters, digits, '_' and '-'", r"^[A-Za-z0-9_-]+$", 128)
HEADER_NAME = Format(
    "a name of a header", "letters, digits, '_' and '-', for example x-user-id", r"^[A-Za-z0-9_-]+$", 128
)
HTTP_URL = Format(
    "an HTTP URL",
    "http://HOST or https://HOST, for example http://collector:4318",
    r"^https?://[^ /]+.*$",
    1024,
)
WEBHOOK_URL = Format(
    "an HTTP URL", "http:// or https://, for example https://example.com/jobs", r"^https?://.+", 1024
)
SINK_URL = Format(
    "a URL of a sink of payloads",
    "http://HOST/PATH, https://HOST/PATH or s3://BUCKET/PREFIX",
    r"^(s3|https?)://[^ /]+.*$",
    1024,
)
PERCENTAGE = Format(
    "a percentage",
    """a string of a number and '%', for example "5%" or "0.5%\"""",
    r"^[0-9]+(\.[0-9]+)?%$",
    16,
)
JSON_POINTER = Format(
    "a JSON pointer",
    "/KEY for each level, for example /scores/0; in a key, ~1 means / and ~0 means ~",
    r"^(/([^~]|~[01])*)?$",
    256,
)

ImageReference = Annotated[str, IMAGE]
ObjectName = Annotated[str, OBJECT_NAME]
LabelName = Annotated[str, LABEL_NAME]
Endpoint = Annotated[str, ENDPOINT]
Key = Annotated[str, KEY]
VariableName = Annotated[str, VARIABLE]
LabelKey = Annotated[str, LABEL_KEY]
LabelValue = Annotated[str, LABEL_VALUE]
ExtendedResource = Annotated[str, EXTENDED_RESOURCE]

ModelName = Annotated[str, MODEL_NAME]
HeaderName = Annotated[str, HEADER_NAME]
HttpUrl = Annotated[str, HTTP_URL]
WebhookUrl = Annotated[str, WEBHOOK_URL]
SinkUrl = Annotated[str, SINK_URL]
Percentage = Annotated[str, PERCENTAGE]
"""A share as a string, such as "5%" or "0.5%"."""
JSONPointer = Annotated[str, JSON_POINTER]
"""A JSON pointer (RFC 6901), such as "/timestamp"."""


def check_annotation_keys(annotations: dict[str, str]) -> dict[str, str]:
    """Return annotations whose keys are valid. Raises ValueError. The prefix may have uppercase letters."""
    for key in annotations:
        LABEL_KEY.check(key.lower())
    return annotations


def check_label_keys(labels: dict[str, str]) -> dict[str, str]:
    """Return labels whose keys are valid. Raises ValueError. A schema cannot check the keys of a mapping."""
    for key in labels:
        LABEL_KEY.check(key)
    return labels
