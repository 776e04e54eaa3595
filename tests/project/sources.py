"""The parsed sources. All tests that read them run in one worker, so that each file is parsed once."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Final

import pytest

__all__ = ["IN_ONE_WORKER", "parsed"]

IN_ONE_WORKER: Final = pytest.mark.xdist_group("sources")


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))
