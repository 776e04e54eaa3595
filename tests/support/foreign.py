"""Foreign input for fuzzing: arbitrary JSON, and valid input with some values replaced or missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

TEXTS: Final = (
    st.text(max_size=40)
    | st.text(st.characters(categories=["Cs", "Cc", "Co", "Lo", "So"]), max_size=20)
    | st.sampled_from(["", "\x00", "\ud800", "-", ".", "..", "/", "%2f", "é" * 90, "x" * 400, "9" * 5000, "Z", "null"])
)
"""Texts, odd ones among them."""

SCALARS: Final = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([10**20, -(10**400)]) | TEXTS
JSON: Final = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
"""Any value of Python's JSON parser."""

ANYTHING: Final = JSON | st.binary(max_size=5) | st.just(object())


def tried(read: Callable[..., T], *arguments: Any, refusal: type[Exception] = ValueError) -> T | None:
    """The value read; None if it is refused with a message."""
    try:
        return read(*arguments)
    except refusal as error:
        if not str(error):
            raise
        return None


@st.composite
def spoilt(draw: Callable[[st.SearchStrategy[Any]], Any], right: Any) -> Any:
    """Valid JSON with up to three of its fields missing or replaced."""
    found = _copy(right)
    for _ in range(draw(st.integers(0, 3))):
        holder = found
        while isinstance(holder, dict) and holder:
            key = draw(st.sampled_from(sorted(holder, key=str)))
            inner = holder[key]
            if isinstance(inner, dict) and inner and draw(st.booleans()):
                holder = inner
                continue
            if draw(st.booleans()):
                holder[key] = draw(JSON)
            else:
                del holder[key]
            break
    return found


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, dict) else value
