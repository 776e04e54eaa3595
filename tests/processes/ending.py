"""Records one event, and ends in the way that its second argument names."""

from __future__ import annotations

import atexit
import gc
import sys
import threading

from kevents._runtime import lifecycle as _lifecycle
from tests.processes.common import REFERENCE, recorder

events = recorder()
gc.collect()
how = sys.argv[2]
if how != "thread":
    events.event(REFERENCE, "Normal", "Ended", how)
if how == "raise":
    raise RuntimeError("as asked")
if how == "sys.exit":
    sys.exit(3)
if how == "thread":
    threading.Thread(target=lambda: events.event(REFERENCE, "Normal", "Ended", how)).start()
if how == "atexit":
    atexit.register(lambda: events.event(REFERENCE, "Normal", "Ended", "from a hook"))
if how == "atexit-before":
    atexit.register(lambda: events.event(REFERENCE, "Normal", "Ended", "from an older hook"))
    _lifecycle.flush_before_other_exit_hooks()  # as a sink does after it builds a client
if how == "many":
    _lifecycle.EXIT_TIMEOUT = 60.0  # the test is about complete delivery, not about the machine's load
    for number in range(2000):
        events.event(REFERENCE, "Normal", "Ended", f"number {number}")
