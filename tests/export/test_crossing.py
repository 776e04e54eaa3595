"""One exported record crosses the modules that the architecture page shows, and at most 16."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from kubernetes import config

import kevents
from kevents.export import Batch, BatchOptions, ClusterEventSource, Destination, Enricher, Exporter, FileSink, Route
from kevents.testing import APIServer
from tests.export.doubles import PATIENCE

pytestmark = pytest.mark.wire
PACKAGE = Path(kevents.__file__).parent
ARCHITECTURE = Path(__file__).parents[2] / "docs/architecture.md"
MOST = 16


class Modules:
    """Records the modules whose functions the threads of an export call, while it is switched on."""

    def __init__(self) -> None:
        self.on = False
        self.names: set[str] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Take one event of the profiler."""
        if self.on and event == "call" and threading.current_thread().name.startswith("kevents-export-"):
            path = Path(frame.f_code.co_filename)
            if PACKAGE in path.parents:
                self.names.add(path.relative_to(PACKAGE).with_suffix("").as_posix().removeprefix("export/"))


class Archive(FileSink):
    """A file sink that counts its written batches."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.written = threading.Semaphore(0)

    def write(self, batch: Batch) -> None:
        """Write a batch, and count it."""
        super().write(batch)
        if batch.records:
            self.written.release()


def put(server: APIServer, pod: dict[str, Any], name: str, second: int) -> None:
    """Create an event about a pod, at a time of its own: equal times are parsed once."""
    about = {"kind": "Pod", "apiVersion": "v1", "namespace": "default", "name": pod["metadata"]["name"]}
    about |= {key: pod["metadata"][key] for key in ("uid", "resourceVersion")}
    time = f"2026-07-24T09:00:{second:02d}Z"
    event = {"metadata": {"name": name}, "involvedObject": about, "reason": "Test", "count": 1, "lastTimestamp": time}
    server.create("v1", "events", event)


def test_crossing(api_server: APIServer, tmp_path: Path) -> None:
    """From the watch's response to the file, a record crosses the modules of the picture, and no others."""
    modules = Modules()
    pod = api_server.create("v1", "pods", {"metadata": {"name": "web"}})
    client = config.new_client_from_config(str(api_server.kubeconfig()))
    archive = Archive(tmp_path)
    exporter = Exporter(
        ClusterEventSource(client),
        routes=[Route(to="archive", reason="Test")],
        sinks={"archive": Destination(archive, BatchOptions(max_items=1))},
        enrich=Enricher(client),
    )
    threading.setprofile(modules)  # of threads that start from now on
    try:
        running = threading.Thread(target=exporter.run, name="run")
        running.start()
        for number in range(3):  # the first ones open the segment and fill the cache
            put(api_server, pod, f"warm-{number}", number)
            assert archive.written.acquire(timeout=PATIENCE)
        modules.on = True
        put(api_server, pod, "traced", 59)
        assert archive.written.acquire(timeout=PATIENCE)
        modules.on = False
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]
        exporter.stop()
        running.join()
        client.rest_client.pool_manager.clear()
    picture = ARCHITECTURE.read_text(encoding="utf-8").split("## A record's way\n")[1].split("```")[1]
    assert modules.names == set(re.findall(r"_\w+/\w+", picture))
    assert len(modules.names) <= MOST
