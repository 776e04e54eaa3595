"""Plots of the stored figures."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

__all__ = ["draw_comparison", "draw_growth", "draw_real"]

BETTER: Final = "#2a7f62"
WORSE: Final = "#c8553d"
AIM: Final = "#1f2933"
QUIET: Final = "#7b8794"
_CACHE: Final = 4096

mpl.rcParams.update(
    {
        "font.family": "sans-serif",
        "font.size": 10,
        "svg.hashsalt": "kevents",  # makes the output reproducible
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": "white",
    }
)


def draw_comparison(written: dict[str, Any], path: Path) -> None:
    """Draw a bar for each figure: its ratio to client-go on a logarithmic axis, with the aims as marks."""
    found = [finding for finding in written["findings"] if finding["ratio"] is not None]
    if not found:
        return
    figure, axes = plt.subplots(figsize=(11, 0.4 * len(found) + 1.6), layout="constrained")
    places = list(range(len(found)))[::-1]
    for place, finding in zip(places, found, strict=True):
        _draw_bar(axes, place, finding)
    axes.set_yticks(places, [finding["title"] for finding in found])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, len(found) - 0.4)
    _set_scale(axes, [_better(finding, value) for finding in found for value in (finding["ratio"], finding["aim"])])
    axes.text(1.02, len(found) - 0.25, "kevents : client-go", transform=axes.get_yaxis_transform(), color=QUIET)
    axes.legend(handles=_legend(), loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3, frameon=False)
    told = written["machine"]
    figure.suptitle(
        f"Times better than client-go {told['client-go']} (Go {told['go']}): kevents on {told['python']}\n"
        f"{told['cores']} cores of {told['processor']}, medians of {written['rounds']} rounds in turns, {told['date']}",
        x=0.01,
        ha="left",
        fontsize=10,
        color=AIM,
    )
    _save(figure, path)


def _better(finding: dict[str, Any], ratio: float | None) -> float:
    """Return how many times better than client-go a ratio is."""
    if ratio is None:
        return 1.0
    return ratio if finding["more_is_better"] else 1 / ratio


def _draw_bar(axes: Axes, place: int, finding: dict[str, Any]) -> None:
    better = _better(finding, finding["ratio"])
    axes.barh(place, better - 1, left=1, height=0.62, color=BETTER if better >= 1 else WORSE, zorder=2)
    if finding["aim"] is not None:
        aim = _better(finding, finding["aim"])
        axes.plot(aim, place, marker="|", markersize=20, markeredgewidth=2.6, color=AIM, zorder=3)
    axes.text(
        1.02,
        place,
        f"{better:.2g}x    {_figure(finding['kevents'])} : {_figure(finding['client_go'])} {finding['unit']}",
        transform=axes.get_yaxis_transform(),
        va="center",
        color=AIM,
    )


def _set_scale(axes: Axes, values: list[float]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(min(*values, 0.5) / 1.3, max(*values, 2) * 1.3)
    axes.set_xticks(
        [tick for tick in (0.1, 0.2, 0.5, 1, 2, 4, 10, 20) if min(values) / 1.3 <= tick <= max(values) * 1.3]
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", color="#e4e7eb", zorder=0)
    axes.axvline(1, color=AIM, linewidth=1, zorder=2.5)


def _legend() -> list[Artist]:
    mark = Line2D([], [], marker="|", markersize=14, markeredgewidth=2.6, color=AIM, linestyle="", label="aim")
    return [Patch(color=BETTER, label="better than client-go"), Patch(color=WORSE, label="worse"), mark]


def draw_real(found: dict[str, Any], path: Path) -> None:
    """Deliveries on the left, processor time on the right: a bar for each program, with its ratio to client-go's."""
    titles = list(found)
    figure, both = plt.subplots(1, 2, figsize=(11, 0.42 * len(titles) + 1.4), layout="constrained", sharey=True)
    places = list(range(len(titles)))[::-1]
    colors = [BETTER if title.startswith("kevents") else QUIET for title in titles]
    for axes, key, name in (
        (both[0], "per_second", "deliveries per second: more is better"),
        (both[1], "cpu_us", "processor time per delivery, µs: less is better"),
    ):
        values = [median(each[key] for each in found[title]) for title in titles]
        axes.barh(places, values, height=0.62, color=colors, zorder=2)
        for place, title, value in zip(places, titles, values, strict=True):
            rounds = zip(found[title], found.get("client-go", []), strict=False)
            ratios = [ours[key] / theirs[key] for ours, theirs in rounds]
            beside = f"  ({median(ratios):.2f})" if ratios else ""
            axes.text(value, place, f" {value:,.0f}{beside}", va="center", color=AIM)
        axes.set_xlim(right=max(values) * 1.3)
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_yticks(places, titles)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e4e7eb", zorder=0)
    _save(figure, path)


def draw_growth(found: dict[str, Any], path: Path) -> None:
    """Draw time by number of objects, and by number of threads, watchers and broadcasters."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    objects = found["objects"]
    left.plot([row["objects"] for row in objects], [row["us"] for row in objects], marker="o", color=BETTER)
    left.axvline(_CACHE, color=QUIET, linewidth=1, linestyle="--")
    left.annotate(
        "size of the caches", (_CACHE, 0.4), xytext=(-5, 0), textcoords="offset points", ha="right", color=QUIET
    )
    left.set_xscale("log")
    left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    left.set_xlabel("objects that events are about, in turns")
    left.set_title("correlating an event", loc="left", fontsize=10)
    for kind, color, marker in (("threads", BETTER, "o"), ("watchers", WORSE, "s"), ("broadcasters", AIM, "^")):
        rows = found[kind]
        each = [row["cpu_us"] / row["watchers"] for row in rows]
        right.plot([row[kind] for row in rows], each, marker=marker, color=color, label=kind)
    right.set_xscale("log", base=2)
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    right.set_xlabel("how many of them")
    right.set_title("processor time of recording an event and handling it, for each watcher", loc="left", fontsize=10)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.set_ylabel("µs")
        axes.grid(color="#e4e7eb", zorder=0)
    _save(figure, path)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
    plt.close(figure)
