"""Durations and sizes as a configuration writes them."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES: Final = {"B": 1, "kB": 10**3, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+", re.ASCII)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*([A-Za-z]+)", re.ASCII)
_LONGEST_DURATION: Final = 10**9  # thirty years; what waits can wait no longer than three hundred


def duration(text: str) -> float:
    """Seconds from ``10s``, ``1h30m``, ``250ms``, ``7d``.

    Raises:
        ValueError: If it is none, zero or more than thirty years.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"no duration: {text!r}")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if not 0 < seconds <= _LONGEST_DURATION:
        raise ValueError(f"a duration of {seconds} seconds")
    return seconds


def size(text: str) -> int:
    """Bytes from ``5MiB``, ``512kB``, ``100B``.

    Raises:
        ValueError: If it is none, or zero.
    """
    match = _SIZE.fullmatch(text)
    if not match or match[2] not in _BYTES or not (found := int(float(match[1]) * _BYTES[match[2]])):
        raise ValueError(f"no size: {text!r}")
    return found
