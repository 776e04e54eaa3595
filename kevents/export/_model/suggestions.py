"""What a user may have meant by a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
