"""Imported first by programs that tests run: raises the default timeouts for busy machines."""

from __future__ import annotations

from typing import Any, Final

import kevents
from kevents import aio
from kevents._runtime import lifecycle

__all__: list[str] = []

TIMEOUT: Final = 60.0

_shutdowns: list[Any] = [kevents.EventBroadcaster.shutdown, aio.EventBroadcaster.shutdown]
for _shutdown in _shutdowns:
    _shutdown.__defaults__ = (TIMEOUT,)
lifecycle.EXIT_TIMEOUT = TIMEOUT
