"""Status bodies: the errors of an API server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Details = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of `details.causes`.

    .. versionadded:: 0.1
    """

    reason: str
    message: str
    field: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the cause as JSON, without an empty field."""
        body = {"reason": self.reason, "message": self.message}
        return {**body, "field": self.field} if self.field else body


class APIError(Exception):
    """A request that is answered with a Status of failure.

    Attributes:
        code: The HTTP status.
        reason: The machine-readable reason; empty if the server gives none.
        message: The text for people.
        details: `details` of the Status; None omits the key.
        headers: Additional response headers.
        metadata: The metadata of the Status.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Details | None = None,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})
        self.metadata = dict(metadata or {})

    def body(self) -> dict[str, Any]:
        """Return the Status object."""
        return {**status_body(self.code, self.reason, self.message, self.details), "metadata": self.metadata}


def status_body(code: int, reason: str, message: str, details: Details | None = None) -> dict[str, Any]:
    """Build a Status of failure; its keys have the order of the real server."""
    body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    body["message"] = message
    if reason:
        body["reason"] = reason
    if details is not None:
        body["details"] = details
    body["code"] = code
    return body


def qualified(resource: str, group: str) -> str:
    """Return `resource`, or `resource.group` outside core/v1."""
    return f"{resource}.{group}" if group else resource


def _details(name: str, group: str, kind: str, causes: Iterable[Cause] = ()) -> Details:
    details: Details = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    if listed := [cause.as_dict() for cause in causes]:
        details["causes"] = listed
    return details


def bad_request(message: str) -> APIError:
    """400: the body or a parameter cannot be understood."""
    return APIError(400, "BadRequest", message)


def not_found(resource: str, group: str, name: str) -> APIError:
    """404 for one object."""
    message = f'{qualified(resource, group)} "{name}" not found'
    return APIError(404, "NotFound", message, _details(name, group, resource))


def no_such_resource() -> APIError:
    """404 for the path of an unknown resource."""
    return APIError(404, "NotFound", "the server could not find the requested resource", {})


def method_not_allowed() -> APIError:
    """405 for a verb that the resource does not have."""
    message = "the server does not allow this method on the requested resource"
    return APIError(405, "MethodNotAllowed", message, {})


def already_exists(resource: str, group: str, name: str) -> APIError:
    """409 for a create with the name of an existing object."""
    message = f'{qualified(resource, group)} "{name}" already exists'
    return APIError(409, "AlreadyExists", message, _details(name, group, resource))


_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(resource: str, group: str, name: str, why: str = _MODIFIED) -> APIError:
    """409 for a write with an old resourceVersion, or another uid."""
    message = f'Operation cannot be fulfilled on {qualified(resource, group)} "{name}": {why}'
    return APIError(409, "Conflict", message, _details(name, group, resource))


def precondition_failed(kind: str, group: str, name: str, why: str, fate: str) -> APIError:
    """409 for a delete whose precondition does not hold."""
    text = f'Operation cannot be fulfilled on {qualified(kind, group)} "{name}": {why}'
    return APIError(409, "Conflict", f"{text}. The object might have been {fate}", _details(name, group, kind))


def forbidden(resource: str, group: str, name: str, why: str, causes: Iterable[Cause] = ()) -> APIError:
    """403 for an object or, without a name, for a collection."""
    subject = f'{qualified(resource, group)} "{name}"' if name else qualified(resource, group)
    return APIError(403, "Forbidden", f"{subject} is forbidden: {why}", _details(name, group, resource, causes))


def unsupported_media_type(types: str) -> APIError:
    """415 for a body whose content type is not one of `types`."""
    message = f"the body of the request was in an unknown format - accepted media types include: {types}"
    return APIError(415, "UnsupportedMediaType", message)


def invalid(kind: str, name: str, causes: Iterable[Cause], group: str = "") -> APIError:
    """422 for an object that does not pass validation.

    Args:
        kind: The kind of the object.
        name: Its name, may be empty.
        causes: The validation errors, at least one.
        group: The API group of the kind.
    """
    listed = list(causes)
    texts = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in listed))
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    message = f'{qualified(kind, group)} "{name}" is invalid: {joined}'
    return APIError(422, "Invalid", message, _details(name, group, kind, listed))


def field_required(field: str, note: str = "") -> Cause:
    """Return the cause for a missing field."""
    return Cause("FieldValueRequired", f"Required value: {note}" if note else "Required value", field)


def field_invalid(field: str, value: str, note: str) -> Cause:
    """Return the cause for a field with a wrong value."""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return Cause("FieldValueInvalid", f'Invalid value: "{quoted}": {note}', field)


def field_immutable(field: str, value: str) -> Cause:
    """Return the cause for a changed field that cannot change."""
    return field_invalid(field, value, "field is immutable")


def field_forbidden(field: str, note: str) -> Cause:
    """Return the cause for a field that must not be set."""
    return Cause("FieldValueForbidden", f"Forbidden: {note}", field)


def field_unsupported(field: str, value: str, supported: str) -> Cause:
    """Return the cause for a value that is not in a list; both `value` and `supported` are quoted already."""
    return Cause("FieldValueNotSupported", f"Unsupported value: {value}: supported values: {supported}", field)
