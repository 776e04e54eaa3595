"""Values as configurations and messages write them: durations, sizes, quoted values, suggestions for unknown names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final


def listed(names: Iterable[object]) -> str:
    """Names as a text: ``"a", "b" or "c"``."""
    *most, last = [shown(name) for name in names] or [""]
    return f"{', '.join(most)} or {last}" if most else last


def shown(value: object) -> str:
    """A value as a configuration writes it: texts in double quotes, the rest as Python shows it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    try:
        return repr(value)
    except ValueError:  # of a whole number with more digits than Python shows
        return "a number of thousands of digits"


def did_you_mean(name: str, possible: Iterable[str]) -> str:
    """The fix as an end of a sentence, ``; did you mean "kind"?``; empty without a guess.

    Args:
        name: What was written.
        possible: What could have been.
    """
    names = {candidate.lower().replace("-", "_"): candidate for candidate in possible}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.7)
    return f"; did you mean {shown(names[found[0]])}?" if found else ""


def unknown(what: str, name: str, possible: Iterable[str], of: str = "") -> str:
    """Say that a name does not exist: with what was meant, else with all that there are.

    Args:
        what: What it should name: ``key``, ``sink``.
        name: What was written.
        possible: What could have been.
        of: What it is looked for in.
    """
    candidates = list(possible)
    end = did_you_mean(name, candidates) or (f"; there are {listed(candidates)}" if candidates else "; there are none")
    return f"unknown {what} {shown(name)}{f' of {of}' if of else ''}{end}"


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
