"""Who the server is by TLS: the context that was given, or a certificate made when it is needed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from kevents.testing._apiserver.certificate import self_signed

if TYPE_CHECKING:
    import ssl

__all__ = ["Identity"]


class Identity:
    """The server's certificate.

    Args:
        host: The address that it is for, besides those of the loopback interface.
        context: What was given; None for a self-signed certificate.
        ca: What clients should trust, PEM, when a context is given.
    """

    def __init__(self, host: str, context: ssl.SSLContext | None, ca: str) -> None:
        self._host = host
        self._context = context
        self._ca = ca
        self._making = threading.Lock()

    def context(self) -> ssl.SSLContext:
        """Give what the server's side of TLS needs."""
        with self._making:
            if self._context is None:
                made = self_signed(dict.fromkeys((self._host, "127.0.0.1", "::1", "localhost")))
                self._ca, self._context = made.certificate, made.context()
            return self._context

    @property
    def ca(self) -> str:
        """The certificate that clients should trust, PEM."""
        self.context()
        return self._ca
