"""Draw which services were under impact over time, from an exported archive: warnings about the pods of each service.

The enricher must have added the services (`services = true` in `[enrich]`); without them, owners are drawn.

    pip install 'kevents[export]' matplotlib
    python impact.py events/ impact.svg
"""

from __future__ import annotations

import sys
from collections import Counter
from datetime import datetime, timedelta, timezone

from matplotlib import dates
from matplotlib import pyplot as plt

from kevents.export import read_records

SLOT = timedelta(minutes=15)
MOST = 15  # services


def slot_of(text: str) -> datetime:
    """The begin of the quarter of an hour that holds a time."""
    time = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    return time - (time - datetime.min.replace(tzinfo=timezone.utc)) % SLOT


def warnings(archive: str) -> Counter[tuple[str, datetime]]:
    """The number of warnings by service and slot."""
    counts: Counter[tuple[str, datetime]] = Counter()
    for record in read_records(archive, type="Warning"):
        own = record["kevents"]
        if "gap" in own:
            continue
        owner = own.get("topOwner") or record["involvedObject"]
        for service in own.get("services") or [owner["name"]]:
            counts[service, slot_of(own["time"])] += own["countDelta"] or 1
    return counts


def draw(counts: Counter[tuple[str, datetime]], path: str) -> None:
    """Draw a row for each service; the darker a square, the more warnings."""
    totals = Counter[str]()
    for (service, _), number in counts.items():
        totals[service] += number
    services = [service for service, _ in totals.most_common(MOST)][::-1]
    begin, end = min(slot for _, slot in counts), max(slot for _, slot in counts)
    slots = [begin + SLOT * number for number in range((end - begin) // SLOT + 1)]
    rows = [[counts[service, slot] for slot in slots] for service in services]
    figure, axes = plt.subplots(figsize=(10, 1 + 0.35 * len(services)), layout="constrained")
    edges = [*slots, slots[-1] + SLOT]
    colours = axes.pcolormesh(edges, range(len(services) + 1), rows, cmap="Reds", vmin=0, rasterized=True)
    axes.set_yticks([number + 0.5 for number in range(len(services))], services)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.set_xlabel("UTC")
    axes.set_title("Warnings about the pods of each service")
    figure.colorbar(colours, label="warnings in 15 minutes")
    figure.savefig(path)


if __name__ == "__main__":
    draw(warnings(sys.argv[1]), sys.argv[2])
