"""Errors of the API server, as the `Status` objects that kubectl and the Kubernetes clients expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REASONS = {
    400: "BadRequest", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed", 409: "Conflict",
    410: "Expired", 415: "UnsupportedMediaType", 422: "Invalid", 500: "InternalError", 503: "ServiceUnavailable",
}  # fmt: skip

CAUSES = {
    "Required value": "FieldValueRequired", "Unsupported value": "FieldValueNotSupported",
    "Duplicate value": "FieldValueDuplicate", "Too long": "FieldValueTooLong", "Too many": "FieldValueTooMany",
    "Forbidden": "FieldValueForbidden", "Not found": "FieldValueNotFound",
}  # fmt: skip


@dataclass(frozen=True)
class FieldError:
    """The path of an invalid field ("spec.handler.type") and the message of the API server ("Required value")."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"

    def cause(self) -> dict[str, str]:
        reason = CAUSES.get(self.message.split(":")[0], "FieldValueInvalid")
        return {"reason": reason, "message": self.message, "field": self.path}


class APIError(Exception):
    """An error with its HTTP status. details: as in metav1.StatusDetails."""

    def __init__(
        self, code: int, message: str, *, reason: str = "", details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or REASONS.get(code, "")
        self.details = details or {}

    def status(self) -> dict[str, Any]:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }


def qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(plural: str, group: str, name: str) -> APIError:
    details = {"name": name, "group": group, "kind": plural}
    return APIError(404, f'{qualified(plural, group)} "{name}" not found', details=details)


def exists(plural: str, group: str, name: str) -> APIError:
    details = {"name": name, "group": group, "kind": plural}
    message = f'{qualified(plural, group)} "{name}" already exists'
    return APIError(409, message, reason="AlreadyExists", details=details)


def conflict(plural: str, group: str, name: str, why: str) -> APIError:
    details = {"name": name, "group": group, "kind": plural}
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return APIError(409, message, details=details)


def invalid(kind: str, group: str, name: str, problems: Sequence[FieldError]) -> APIError:
    """Return the error (422) that lists all invalid fields, in the format of the API server: "a: b" or "[a: b, c: d]"."""
    text = str(problems[0]) if len(problems) == 1 else "[" + ", ".join(map(str, problems)) + "]"
    details = {
        "name": name,
        "group": group,
        "kind": kind,
        "causes": [problem.cause() for problem in problems],
    }
    return APIError(422, f'{qualified(kind, group)} "{name}" is invalid: {text}', details=details)
