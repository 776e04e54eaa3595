"""A signal handler or a finaliser, at a moment of one's choosing: code that runs in the middle of other code."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import kevents

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["interrupted"]

FINEST: Final = "opcode" if sys.version_info < (3, 12) else "line"
"""The smallest steps that tracing reaches: Python 3.12 and 3.13.0 trace no opcodes of a frame, or only some."""

_ROOMS: Final = str(Path(kevents.__file__).parent)


def interrupted(call: Callable[[], object], at: int, handler: Callable[[], object], *, where: str = FINEST) -> bool:
    """Run a call, and in the middle of it, in the same thread, a handler.

    Args:
        call: Whatever uses kevents.
        at: Before which step within kevents the handler comes, from 1.
        handler: It may raise: then the call ends with that.
        where: ``opcode`` or ``line``: before any; ``call``: at the entry of a function, where the interpreter looks for
            signals.

    Returns:
        Whether the call had so many steps.
    """
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            handler()

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == where:
            step()
        return local

    def entered(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_ROOMS):
            return None
        if where == "call":
            if not frame.f_code.co_flags & inspect.CO_GENERATOR:  # what is raised here would end it unfinished
                step()
            return None
        frame.f_trace_opcodes = where == "opcode"
        frame.f_trace_lines = where == "line"
        return local

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        call()
    finally:
        sys.settrace(before)
    return steps >= at
