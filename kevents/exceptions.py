"""All exceptions of kevents.

.. code-block:: text

    KeventsError
     ├── InvalidEventError (ValueError)      raised into the caller by a strict broadcaster
     │    ├── InvalidReferenceError
     │    ├── InvalidTypeError
     │    └── InvalidMessageError
     └── SinkError                           raised by a sink; never reaches the caller
          ├── StatusError
          └── UnavailableError
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class KeventsError(Exception):
    """Base class of all exceptions of kevents."""


class InvalidEventError(KeventsError, ValueError):
    """The event is invalid. Raised only by a strict broadcaster."""


class InvalidReferenceError(InvalidEventError):
    """The object gives no reference, or events about it are refused."""


class InvalidTypeError(InvalidEventError):
    """The event type is neither ``Normal`` nor ``Warning``."""


class InvalidMessageError(InvalidEventError):
    """The reason, the message, an annotation or a label cannot be converted to text."""


class SinkError(KeventsError):
    """Base class of the exceptions of an :class:`~kevents.EventSink`."""


class StatusError(SinkError):
    """The API server answered with an error status (client-go: ``StatusError``).

    Args:
        code: The HTTP status.
        reason: The machine-readable reason of the Status body (``AlreadyExists``), empty without one.
        message: The text for people.
        causes: The reasons in the Status body's ``details.causes`` (``NamespaceTerminating``).
        retry_after: Seconds of the ``Retry-After`` header, None without one.
    """

    def __init__(
        self,
        code: int,
        reason: str = "",
        message: str = "",
        causes: Iterable[str] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, reason, message)
        self.code = code
        self.reason = reason
        self.message = message
        self.causes = tuple(causes)
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Return ``403 Forbidden: events is forbidden: ...``."""
        return f"{self.code} {self.reason}".rstrip() + (f": {self.message}" if self.message else "")


class UnavailableError(SinkError):
    """The API server is unreachable, or there are no credentials yet. The write is tried again.

    Args:
        message: The cause, without credentials.
        retry_after: Seconds of the ``Retry-After`` header, None without one.
    """

    def __init__(self, message: str = "the API server is unavailable", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
