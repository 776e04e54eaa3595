"""Records in an isolated subinterpreter, where daemon threads cannot be started, and ends the subinterpreter.

The first argument is the file of the sink, the second one selects how it ends.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress

out, how = sys.argv[1:]
PROGRAM = f"""
import sys
sys.path[:] = {sys.path!r}
sys.argv[:] = ["subinterpreter", {out!r}]
import threading
init = threading.Thread.__init__

def refuse(self, *args, daemon=None, **kwargs):  # as Python does from 3.12 on
    if daemon:
        raise RuntimeError("daemon threads are disabled in this (sub)interpreter")
    init(self, *args, daemon=daemon, **kwargs)

threading.Thread.__init__ = refuse
from tests.processes.common import REFERENCE, broadcast
broadcaster = broadcast()
broadcaster.start_event_watcher(print)
for number in range(10):
    broadcaster.new_recorder("a-script").event(REFERENCE, "Normal", "Ended", f"number {{number}}")
if {how!r} == "shutdown":
    assert broadcaster.shutdown() == 0
    assert broadcaster.statistics().dropped == {{}}
"""
with suppress(ImportError):  # Python 3.14
    interpreter = importlib.import_module("concurrent.interpreters").create()
    interpreter.exec(PROGRAM)
    interpreter.close()
    sys.exit()
try:
    interpreters = importlib.import_module("_interpreters")  # Python 3.13
except ImportError:
    interpreters = importlib.import_module("_xxsubinterpreters")
number = interpreters.create()
problem = interpreters.run_string(number, PROGRAM)
interpreters.destroy(number)
sys.exit(problem and str(problem))
