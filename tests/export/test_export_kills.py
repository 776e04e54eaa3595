"""Exports killed with SIGKILL at random moments: no event is lost. Set `KILLS=200` for more kills than the default."""

from __future__ import annotations

import itertools
import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kevents.testing import APIServer
from tests.export.doubles import PATIENCE
from tests.export.held import ids_in_folder, ids_in_store
from tests.export.moto import Moto
from tests.export.products import Elasticsearch
from tests.export.receiver import Answer, Asked
from tests.processes.export_whole import LARGEST_BATCH

KILLS = int(os.environ.get("KILLS", "40"))
LONGEST_LIFE = 0.35
NOW_AND_THEN = 0.06


@dataclass
class Lives:
    """Exports started in a forking process, and their exit statuses."""

    process: subprocess.Popen[str]
    ends: list[int] = field(default_factory=list)

    def begin(self, upto: Mapping[str, int] | None = None) -> int:
        """Start an export and return its process id."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(upto or {}) + "\n")
        self.process.stdin.flush()
        return self._heard()

    def end(self) -> int:
        """Wait for its end and return its exit status."""
        self.ends.append(self._heard())
        return self.ends[-1]

    def _heard(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@contextmanager
def lives(server: APIServer, sinks: dict[str, str], **plan: Any) -> Iterator[Lives]:
    """Start the forking process."""
    told = json.dumps({"url": server.url, "token": server.token, "sinks": sinks, **plan})
    command = [sys.executable, "-m", "tests.processes.export_whole", told]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Lives(process)
        assert process.stdin is not None
        process.stdin.close()


def happen(server: APIServer, number: int) -> None:
    """Create an event in one of two namespaces."""
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
def happening(server: APIServer) -> Iterator[Callable[[int], None]]:
    """Create events periodically in a thread. Yields a function that creates more events immediately."""
    over = threading.Event()
    numbers = itertools.count()

    def run() -> None:
        while not over.wait(NOW_AND_THEN):
            happen(server, next(numbers))

    thread = threading.Thread(target=run, name="test-events")
    thread.start()
    try:
        yield lambda events: [happen(server, next(numbers)) for _ in range(events)] and None
    finally:
        over.set()
        thread.join()


def killed(server: APIServer, sinks: dict[str, str], kills: int, hook: Hook, **plan: Any) -> list[str]:
    """Run exports of these events and kill them repeatedly. Returns the ids of all events.

    One in four is killed at a random moment of its life, the others soon after they sent something, when most can
    break.
    """
    chance = random.Random(11)
    with lives(server, sinks, **plan) as exports:
        with happening(server) as more:
            for number in range(kills):
                more(4)
                hook.life += 1
                pid = exports.begin()
                if number % 4:
                    hook.wait_heard()
                time.sleep(chance.uniform(0.0, 0.05 if number % 4 else LONGEST_LIFE))  # the random moment of the kill
                os.kill(pid, signal.SIGKILL)
                exports.end()
        happened = [event["metadata"] for event in server.events()]
        happened.sort(key=lambda one: int(one["resourceVersion"]))
        exports.begin(upto={one["namespace"]: int(one["resourceVersion"]) for one in happened})
        assert exports.end() == 0, "the last export must exit with status 0"
    assert exports.ends[:-1] == [-signal.SIGKILL] * kills
    return sorted(f"{one['uid']}:{one['resourceVersion']}" for one in happened)


class Hook(ThreadingHTTPServer):
    """A receiver of a webhook.

    Attributes:
        life: The number of the current export, set by the test.
        heard: The received ids, each with the number of the export that sent it.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiving)
        self.life = 0
        self.heard: list[tuple[int, str]] = []
        self.changed = threading.Condition()

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.server_port}/events"

    def hear(self, ids: list[str]) -> None:
        """Store the received ids."""
        with self.changed:
            self.heard += [(self.life, one) for one in ids]
            self.changed.notify_all()

    def wait_heard(self) -> None:
        """Wait until the current export has sent something."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.heard and self.life == self.heard[-1][0], PATIENCE)

    def handle_error(self, *_: object) -> None:
        """Ignore errors from senders that are killed."""


class Receiving(BaseHTTPRequestHandler):
    """Accepts every batch."""

    protocol_version = "HTTP/1.1"
    server: Hook

    def do_POST(self) -> None:
        """Accept a batch. A truncated batch is ignored."""
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return
        self.server.hear([json.loads(line)["kevents"]["id"] for line in body.splitlines()])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A receiver."""
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, name="test-hook")
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server() -> Iterator[APIServer]:
    """A server with the namespace `prod` that never expires events."""
    with APIServer(event_ttl=None) as running:
        running.create_namespace("prod")
        yield running


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed(server: APIServer, tmp_path: Path, hook: Hook) -> None:
    """After `KILLS` kills, a folder and a local object store hold every event once.

    A webhook, which cannot store a position, has every event and receives at most one batch again after each kill.
    """
    sinks = {
        "folder": f"FileSink({str(tmp_path / 'folder')!r}, max_bytes=20000)",
        "store": f"ObjectStoreSink('file://{tmp_path}/store')",
        "webhook": f"Checkpointed(WebhookSink({hook.url!r}), {str(tmp_path / 'webhook.json')!r})",
    }
    happened = killed(server, sinks, KILLS, hook, namespaces=["default", "prod"])
    assert len(happened) > 4 * KILLS
    assert sorted(ids_in_folder(tmp_path / "folder")) == happened
    assert sorted(ids_in_store(f"file://{tmp_path}/store")) == happened
    assert sorted({one for _, one in hook.heard}) == happened
    again = doubled(hook.heard)
    assert max(again.values(), default=0) <= 2 * LARGEST_BATCH  # one batch for each of the two streams
    print(f"{sum(again.values())} records duplicated after {len(again)} of {KILLS} kills")  # noqa: T201 - for manual runs


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_with_a_bucket(server: APIServer, tmp_path: Path, hook: Hook, moto: Moto) -> None:
    """After `KILLS` kills, an S3 bucket holds every event once."""
    moto.make_bucket("kills")
    sinks = {
        "bucket": f"ObjectStoreSink('s3://kills/events', options={moto.options()!r})",
        "webhook": f"Checkpointed(WebhookSink({hook.url!r}), {str(tmp_path / 'webhook.json')!r})",
    }
    happened = killed(server, sinks, KILLS, hook)
    assert sorted(ids_in_store("s3://kills/events", moto.options())) == happened


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_with_elasticsearch(server: APIServer, tmp_path: Path, hook: Hook) -> None:
    """Elasticsearch stores every event as one document after the number of kills in `KILLS`."""
    with closing(Elasticsearch()) as elastic:
        sinks = {
            "elastic": f"Checkpointed(ElasticsearchSink({elastic.url!r}), {str(tmp_path / 'elastic.json')!r})",
            "webhook": f"Checkpointed(WebhookSink({hook.url!r}), {str(tmp_path / 'webhook.json')!r})",
        }
        happened = killed(server, sinks, KILLS, hook)
        assert sorted(elastic.created) == happened


class KillingElasticsearch(Elasticsearch):
    """Kills the export that sends the first batch, after its documents are stored and before the answer.

    Attributes:
        victim: Receives the process id of the export.
    """

    def __init__(self) -> None:
        self.victim: queue.SimpleQueue[int] = queue.SimpleQueue()
        super().__init__()

    def take(self, asked: Asked, body: bytes) -> Answer:
        """Create documents."""
        first = not self.created
        answer = super().take(asked, body)
        if first:
            os.kill(self.victim.get(timeout=PATIENCE), signal.SIGKILL)
        return answer


@pytest.mark.slow
def test_killed_before_the_answer(server: APIServer, tmp_path: Path) -> None:
    """An export that is killed between a stored batch and its answer sends the batch again. No document is doubled."""
    for number in range(4):
        happen(server, number)
    with closing(KillingElasticsearch()) as elastic:
        sink = f"Checkpointed(ElasticsearchSink({elastic.url!r}), {str(tmp_path / 'elastic.json')!r})"
        with lives(server, {"elastic": sink}) as exports:
            elastic.victim.put(exports.begin())
            assert exports.end() == -signal.SIGKILL
            stored = len(elastic.created)
            revisions = sorted(
                (event["metadata"] for event in server.events()), key=lambda one: int(one["resourceVersion"])
            )
            exports.begin(upto={one["namespace"]: int(one["resourceVersion"]) for one in revisions})
            assert exports.end() == 0
        assert stored > 0
        assert elastic.conflicts == stored
        assert sorted(elastic.created) == sorted(f"{one['uid']}:{one['resourceVersion']}" for one in revisions)


def doubled(heard: list[tuple[int, str]]) -> Counter[int]:
    """Return for each export the number of records that an earlier export had sent."""
    seen: set[str] = set()
    again: Counter[int] = Counter()
    for life, one in heard:
        again[life] += one in seen
        seen.add(one)
    return +again
