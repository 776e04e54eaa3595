"""Every error of kevents, drawn as a tree.

.. code-block:: text

    KeventsError
     ├── InvalidEventError (ValueError)      what a strict broadcaster raises into the caller
     │    ├── InvalidReferenceError
     │    ├── InvalidTypeError
     │    └── InvalidMessageError
     └── SinkError                           what a sink raises; never reaches the caller
          ├── StatusError
          └── UnavailableError
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class KeventsError(Exception):
    """The root of all errors of kevents.

    .. versionadded:: 0.1
    """


class InvalidEventError(KeventsError, ValueError):
    """An event that cannot be recorded as it was given. Raised only by a strict broadcaster.

    .. versionadded:: 0.1
    """


class InvalidReferenceError(InvalidEventError):
    """No reference can be made from the object, or events about it are refused.

    .. versionadded:: 0.1
    """


class InvalidTypeError(InvalidEventError):
    """The event type is neither ``Normal`` nor ``Warning``.

    .. versionadded:: 0.1
    """


class InvalidMessageError(InvalidEventError):
    """The reason, the message, an annotation or a label cannot be made into text.

    .. versionadded:: 0.1
    """


class SinkError(KeventsError):
    """The root of what an :class:`~kevents.EventSink` raises.

    .. versionadded:: 0.1
    """


class StatusError(SinkError):
    """The API server answered, and its answer is not a success (client-go: ``StatusError``).

    Args:
        code: The HTTP status.
        reason: The machine-readable reason of the Status body (``AlreadyExists``), empty without one.
        message: The text for people.
        causes: The reasons of the Status body's ``details.causes`` (``NamespaceTerminating``).
        retry_after: For how many seconds the server asks to be left alone, None if it does not.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        code: int,
        reason: str = "",
        message: str = "",
        causes: Iterable[str] = (),
        retry_after: float | None = None,
    ) -> None:
        """Keep what the server said."""
        super().__init__(code, reason, message)
        self.code = code
        self.reason = reason
        self.message = message
        self.causes = tuple(causes)
        self.retry_after = retry_after

    def __str__(self) -> str:
        """``403 Forbidden: events is forbidden: ...``."""
        return f"{self.code} {self.reason}".rstrip() + (f": {self.message}" if self.message else "")


class UnavailableError(SinkError):
    """The API server cannot be reached now, or there are no credentials for it yet: try again later.

    Args:
        message: What is wrong, without credentials.
        retry_after: For how many seconds the server asks to be left alone, None if it does not.

    .. versionadded:: 0.1
    """

    def __init__(self, message: str = "the API server is unavailable", *, retry_after: float | None = None) -> None:
        """Keep what is wrong."""
        super().__init__(message)
        self.retry_after = retry_after
