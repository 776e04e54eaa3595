"""Imported first by programs that tests run on busy machines: longer timeouts, no reports of slow asyncio steps."""

from __future__ import annotations

import logging
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
# asyncio's debug mode reports slow steps by the wall clock.
logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing "))
