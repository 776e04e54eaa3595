"""CPU time of `kevents read` over a million records in files: all, filtered, counted and by period."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any, Final

from kevents._cli.main import main as kevents
from kevents._model.wire import format_time
from kevents.export import Batch, FileSink, Position, Record, Stream
from tests.bench.rig import run_json, say

__all__ = ["measure", "run_alone", "table"]

RECORDS: Final = 1_000_000
BATCH: Final = 1_000
BEGIN: Final = 1_784_851_200  # 2026-07-24T00:00:00Z
DAY: Final = 86_400
_NANO: Final = 1_000_000_000
TEN_MINUTES: Final = ["--since", "2026-07-24T11:00:00Z", "--until", "2026-07-24T11:10:00Z"]
MINUTE: Final = ["--since", "2026-07-24T11:00:00Z", "--until", "2026-07-24T11:00:59Z"]
CASES: Final[dict[str, list[str]]] = {
    "all records, as JSON lines": ["-o", "json"],
    "all records, as columns": [],
    "warnings of one Deployment": ["--type", "Warning", "--owner", "deploy/web-7", "-o", "json"],
    "counted by reason and owner": ["--count-by", "reason,owner"],
    "10 minutes of the day, as JSON lines": [*TEN_MINUTES, "-o", "json"],
    "one minute of the day, as JSON lines": [*MINUTE, "-o", "json"],
    "one minute, counted by owner": [*MINUTE, "--count-by", "owner"],
}

Row = dict[str, Any]


def body(number: int, seconds: int) -> dict[str, Any]:
    """Return an enriched record."""
    app, at = number % 40, format_time(seconds * _NANO)
    pod, uid = f"web-{app}-6b7f9c5d4-{number % 997:05d}", f"{number:08x}-8f6c-4c1b-9d53-6a0c5f1e2b3d"
    warning = number % 7 == 0
    return {
        "metadata": {
            "name": f"{pod}.18{number:014x}", "namespace": f"team-{app % 8}", "uid": uid,
            "resourceVersion": str(number), "creationTimestamp": at,
        },
        "involvedObject": {
            "kind": "Pod", "namespace": f"team-{app % 8}", "name": pod, "uid": f"{number % 997:08x}-aaaa-4bbb-8ccc-01",
            "apiVersion": "v1", "resourceVersion": "1", "fieldPath": "spec.containers{app}",
            "labels": {"app": f"web-{app}", "tier": "front", "pod-template-hash": "6b7f9c5d4"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"web-{app}-6b7f9c5d4"}],
            "deleted": False,
        },
        "reason": "BackOff" if warning else ("Pulled", "Created", "Started")[number % 3],
        "message": f"Back-off {number * 2654435761 % 2**32:x} restarting failed container app in pod {pod}",
        "source": {"component": "kubelet", "host": f"node-{number % 50:02d}"},
        "firstTimestamp": at, "lastTimestamp": at, "count": 1 + number % 3,
        "type": "Warning" if warning else "Normal", "eventTime": None,
        "reportingComponent": "kubelet", "reportingInstance": f"node-{number % 50:02d}", "clusterName": "prod",
        "kevents": {
            "v": 1, "id": f"{uid}:{number}", "verb": "ADDED", "time": at, "countDelta": 1,
            "object": {"state": "live", "stale": False},
            "topOwner": {"kind": "Deployment", "name": f"web-{app}", "uid": "uid-deploy"},
            "services": [f"web-{app}", "front"],
        },
    }  # fmt: skip


def make(folder: Path, records: int) -> None:
    """Write an archive with records spread evenly over one day."""
    stream = Stream("5f0e7a52-2c33-4f8e-9c55-0d7c1f1f7a11")
    with contextlib.closing(FileSink(folder)) as sink:
        for first in range(0, records, BATCH):
            numbers = range(first + 1, first + BATCH + 1)
            times = [BEGIN + number * DAY // (records + BATCH) for number in numbers]
            read = [Record(stream, number, body(number, at), 0.0) for number, at in zip(numbers, times, strict=True)]
            sink.write(Batch(read, Position(stream, numbers[-1], (times[-1] + 10) * _NANO)))


@contextlib.contextmanager
def _stdout_to(path: Path) -> Iterator[None]:
    with path.open("w", encoding="utf-8") as output:
        stdout, sys.stdout = sys.stdout, output
        try:
            yield
        finally:
            sys.stdout = stdout


def run_alone(folder: str, case: str) -> Row:
    """Read the archive in this process. The time does not include the start of Python."""
    output = Path(folder).parent / "output"
    with _stdout_to(output):
        kevents(["read", folder, *MINUTE])  # loads the modules
    with _stdout_to(output):
        begun = process_time()
        status = kevents(["read", folder, *CASES[case]])
        seconds = process_time() - begun
    assert status == 0
    with output.open("rb") as lines:
        return {"case": case, "seconds": seconds, "lines": sum(1 for _ in lines)}


def measure(records: int = RECORDS) -> dict[str, Any]:
    """Create the archive and read it in each way, each time in a separate process."""
    with tempfile.TemporaryDirectory(prefix="kevents-read-") as place:
        folder = Path(place) / "events"
        say(f"an archive of {records:,} records")
        make(folder, records)
        files = list(folder.rglob("*.jsonl.gz"))
        rows = []
        for case in CASES:
            say(case)
            rows.append(run_json([sys.executable, "-m", "tests.bench.read", str(folder), case]))
        size = sum(path.stat().st_size for path in files)
    return {"records": records, "segments": len(files), "bytes": size, "rows": rows}


def table(found: dict[str, Any]) -> str:
    """Return the CPU time of each case."""
    about = f"{found['records']:,} records in {found['segments']} segments, {found['bytes'] >> 20} MiB compressed:"
    lines = [about, "", "| `kevents read` | lines | processor time |", "| --- | --- | --- |"]
    lines += [f"| {row['case']} | {row['lines']:,} | {row['seconds']:.2f} s |" for row in found["rows"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run_alone(*sys.argv[1:])) + "\n")
