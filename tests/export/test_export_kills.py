"""Two hundred exports, each killed with SIGKILL at a random moment: nothing is lost, and what cannot double does not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kevents.testing import APIServer
from tests.export.moto import Moto
from tests.export.held import ids_in_folder, ids_in_store

KILLS = 200
EVENTS = 1600
LONGEST_LIFE = 0.35


@dataclass
class Lives:
    """Exports begun in a process that forks, and how each of them ended."""

    process: subprocess.Popen[str]
    ends: list[int] = field(default_factory=list)

    def begin(self, upto: Mapping[str, int] | None = None) -> int:
        """Begin one; its process id."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(upto or {}) + "\n")
        self.process.stdin.flush()
        return self._heard()

    def end(self) -> int:
        """Wait for its end; how it ended."""
        self.ends.append(self._heard())
        return self.ends[-1]

    def _heard(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@contextmanager
def lives(server: APIServer, sinks: dict[str, str], **plan: Any) -> Iterator[Lives]:
    """Be ready to begin exports."""
    told = json.dumps({"url": server.url, "token": server.token, "sinks": sinks, **plan})
    command = [sys.executable, "-m", "tests.processes.export_whole", told]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Lives(process)
        assert process.stdin is not None
        process.stdin.close()


def happen(server: APIServer, number: int) -> None:
    """Let an event happen, in one namespace or the other."""
    namespace = ("default", "prod")[number % 2]
    server.create(
        "v1",
        "events",
        {
            "metadata": {"name": f"web-0.{number:016x}", "namespace": namespace},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": "web-0"},
            "type": "Warning",
            "reason": "BackOff",
            "message": f"message {number} {random.random()}",
            "count": 1,
        },
    )


@contextmanager
def happening(server: APIServer, events: int, seconds: float) -> Iterator[threading.Event]:
    """Let events happen over some time, in a thread; what is given is set when all have."""
    over = threading.Event()

    def run() -> None:
        begun = time.monotonic()
        for number in range(events):
            time.sleep(max(begun + seconds * number / events - time.monotonic(), 0.0))
            happen(server, number)
        over.set()

    thread = threading.Thread(target=run, name="test-events")
    thread.start()
    yield over
    thread.join()


def killed(server: APIServer, sinks: dict[str, str], kills: int, events: int, **plan: Any) -> list[str]:
    """Export what happens while the export is killed again and again; the ids of all that happened."""
    chance = random.Random(11)
    with lives(server, sinks, **plan) as exports:
        with happening(server, events, kills * LONGEST_LIFE * 0.6):
            for _ in range(kills):
                pid = exports.begin()
                time.sleep(chance.uniform(0.0, LONGEST_LIFE))  # the moment is what is random
                os.kill(pid, signal.SIGKILL)
                exports.end()
        happened = sorted((event["metadata"] for event in server.events()), key=lambda one: int(one["resourceVersion"]))
        exports.begin(upto={one["namespace"]: int(one["resourceVersion"]) for one in happened})
        assert 0 == exports.end(), "the last one was to end by itself, with nothing left"
    assert [-signal.SIGKILL] * kills == exports.ends[:-1]
    return sorted(f"{one['uid']}:{one['resourceVersion']}" for one in happened)


@pytest.fixture
def server() -> Iterator[APIServer]:
    """A server whose namespace `prod` is there, and which keeps events for ever."""
    with APIServer(event_ttl=None) as running:
        running.create_namespace("prod")
        yield running


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed(server: APIServer, tmp_path: Path, moto: Moto) -> None:
    """A folder, a local object store and one in S3 hold every event once, after two hundred kills."""
    moto.make_bucket("kills")
    sinks = {
        "folder": f"FileSink({str(tmp_path / 'folder')!r}, max_bytes=20000)",
        "store": f"ObjectStoreSink('file://{tmp_path}/store')",
        "bucket": f"ObjectStoreSink('s3://kills/events', options={moto.options()!r})",
    }
    happened = killed(server, sinks, KILLS, EVENTS, namespaces=["default", "prod"])
    assert EVENTS == len(happened)
    assert happened == sorted(ids_in_folder(tmp_path / "folder"))
    assert happened == sorted(ids_in_store(f"file://{tmp_path}/store"))
    assert happened == sorted(ids_in_store("s3://kills/events", moto.options()))
