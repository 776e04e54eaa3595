"""The rows of the comparison: the location of each figure in the programs' output, and the aim for its ratio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

__all__ = ["CORRELATE", "DELIVER", "RECORD", "Finding", "Row", "findings", "markdown", "with_senders"]


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        title: The title for display.
        path: The location in the programs' JSON.
        unit: The unit of the figure.
        aim: The maximum or minimum ratio of kevents to client-go; None without an aim.
        more_is_better: True for deliveries, false for microseconds.
        ours: The location in kevents' JSON, if different.
    """

    title: str
    path: tuple[str, ...]
    unit: str = "µs"
    aim: float | None = None
    more_is_better: bool = False
    ours: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """The medians of one row over all rounds, and the median of the rounds' ratios."""

    row: Row
    kevents: float
    client_go: float | None
    ratio: float | None

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without an aim or without client-go."""
        if self.ratio is None or self.row.aim is None:
            return None
        return self.ratio >= self.row.aim if self.row.more_is_better else self.ratio <= self.row.aim

    @property
    def times_better(self) -> float | None:
        """How many times better than client-go kevents is. Values above 1 are better for every unit."""
        if self.ratio is None:
            return None
        return self.ratio if self.row.more_is_better else 1 / self.ratio

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "title": self.row.title,
            "unit": self.row.unit,
            "kevents": self.kevents,
            "client_go": self.client_go,
            "ratio": self.ratio,
            "aim": self.row.aim,
            "more_is_better": self.row.more_is_better,
            "met": self.met,
        }


def _delivery(delay: int, aim: float | None = None) -> Row:
    title = f"deliveries a second, server answers after {delay} ms"
    return Row(title, ("deliver", str(delay), "per_second"), "1/s", aim, more_is_better=True)


def with_senders(delay: int, senders: int) -> str:
    """Return the key of deliveries with a number of senders other than the default. client-go always has one."""
    return f"{delay} ms, senders={senders}"


RECORD: Final = (
    Row("`event()` on a reference, in bursts", ("record", "reference", "burst_us"), aim=1.0),
    Row("`event()` on a reference, without a pause", ("record", "reference", "sustained_us")),
    Row("`event()` on a typed object, in bursts", ("record", "object", "burst_us")),
    Row("`event()` on a typed object, without a pause", ("record", "object", "sustained_us")),
)
CORRELATE: Final = (
    Row("identical events -> patch", ("correlate", "identical"), aim=0.1),
    Row("identical events -> skip", ("correlate", "skipped"), aim=0.1),
    Row("one reason, new messages -> aggregate", ("correlate", "messages"), aim=0.1),
    Row("new objects -> create", ("correlate", "objects"), aim=1.2),
    Row("a realistic mix (300 objects, Pareto)", ("correlate", "realistic")),
)
DELIVER: Final = (
    _delivery(0, aim=1.0),
    _delivery(1),
    _delivery(5, aim=4.0),
    replace(
        _delivery(5),
        title="the same with `senders=8`, server answers after 5 ms",
        ours=("deliver", with_senders(5, 8), "per_second"),
    ),
    _delivery(20),
    Row("processor time per delivered create, server answers at once", ("deliver", "0", "cpu_us"), aim=3.0),
    Row(
        "the same with `senders=1`",
        ("deliver", "0", "cpu_us"),
        ours=("deliver", with_senders(0, 1), "cpu_us"),
    ),
)


def findings(rows: Iterable[Row], ours: list[Any], theirs: list[Any]) -> list[Finding]:
    """Return the medians of both sides' figures. `theirs` is empty without Go."""
    return [
        _finding(row, [_at(found, row.ours or row.path) for found in ours], [_at(found, row.path) for found in theirs])
        for row in rows
    ]


def _at(found: Mapping[str, Any], path: tuple[str, ...]) -> float:
    value: Any = found
    for key in path:
        value = value[key]
    return float(value)


def _finding(row: Row, ours: list[float], theirs: list[float]) -> Finding:
    if not theirs:
        return Finding(row, median(ours), None, None)
    ratio = median(our / their for our, their in zip(ours, theirs, strict=True))
    return Finding(row, median(ours), median(theirs), ratio)


def markdown(found: Iterable[Finding]) -> str:
    """Return the table."""
    lines = ["| | client-go | kevents | ratio | aim | met |", "| --- | --- | --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(_cells(finding)) + " |" for finding in found]
    return "\n".join(lines)


def _cells(finding: Finding) -> list[str]:
    row = finding.row
    theirs = "-" if finding.client_go is None else _figure(finding.client_go, row.unit)
    ratio = "-" if finding.ratio is None else f"{finding.ratio:.2f}"
    aim = "" if row.aim is None else f"{'at least' if row.more_is_better else 'at most'} {row.aim:g}"
    met = {True: "yes", False: "**no**", None: ""}[finding.met]
    return [row.title, theirs, _figure(finding.kevents, row.unit), ratio, aim, met]


def _figure(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.2f} {unit}"
