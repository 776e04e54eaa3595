"""Runs a signal handler or a finaliser at a chosen step of other code."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import kevents

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["FINEST", "interrupted", "interrupted_after"]

FINEST: Final = "opcode" if sys.version_info < (3, 12) else "line"
"""The smallest steps that tracing reaches: Python 3.12 and 3.13.0 trace no opcodes of a frame, or only some."""

_PACKAGE: Final = str(Path(kevents.__file__).parent)


def interrupted(call: Callable[[], object], at: int, handler: Callable[[], object], *, where: str = FINEST) -> bool:
    """Run a call, and a handler in the middle of it, in the same thread.

    Args:
        call: Code that uses kevents.
        at: The step within kevents before which the handler runs, from 1.
        handler: The handler. An exception that it raises ends the call.
        where: ``opcode`` or ``line``: before any; ``call``: at the entry of a function, where the interpreter looks for
            signals.

    Returns:
        Whether the call had at least `at` steps.
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
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        if where == "call":
            if not frame.f_code.co_flags & inspect.CO_GENERATOR:  # an exception would end a generator unfinished
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


def interrupted_after(call: Callable[[], object], at: int, handler: Callable[[], object]) -> bool:
    """Like :func:`interrupted`, where the interpreter looks for signals, too: as one of its own functions returns."""
    steps = 0

    def returned(frame: FrameType, event: str, _: Any) -> None:
        nonlocal steps
        if event == "c_return" and frame.f_code.co_filename.startswith(_PACKAGE):
            steps += 1
            if steps == at:
                handler()

    sys.setprofile(returned)
    try:
        call()
    finally:
        sys.setprofile(None)
    return steps >= at
