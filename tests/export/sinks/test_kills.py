"""Writers killed with SIGKILL at random moments lose no record. Set `KILLS=200` for more kills than the default."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from obstore.store import LocalStore, S3Store

from kevents.export import FileSink
from tests.export.batches import STREAM, ids, ids_of
from tests.export.moto import Moto
from tests.export.products import Elasticsearch
from tests.export.receiver import Scripted
from tests.export.sinks.test_file import bodies
from tests.export.sinks.test_object_store import bodies as objects
from tests.processes.export_writer import NOT_ROUTED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KILLS = int(os.environ.get("KILLS", "40"))
SHORTEST, LONGEST = 0.01, 0.25
SOME, MANY = 1, 24
"""Fewer acknowledged batches than `SOME` make the next life longer, more than `MANY` shorter."""


class Writers:
    """Writers that are killed one after the other after a random time. The time adapts to their progress.

    Args:
        sink: An expression with the names of `kevents.export`.
        folder: The folder of the counter file.
        restart: Seconds until the next writer starts.
    """

    def __init__(self, sink: str, folder: Path, restart: float = 0.0) -> None:
        self.counter = folder / "acknowledged"
        self.counter.write_bytes(bytes(8))
        self.command = [sys.executable, "-m", "tests.processes.export_writer", str(self.counter), sink]
        self.restart = restart
        self.life = 0.1

    def acknowledged(self) -> int:
        """Return the number of the last acknowledged record."""
        return int(struct.unpack("<q", self.counter.read_bytes())[0])

    def run(self) -> int:
        """Start and kill all writers. Returns the number of the last acknowledged record."""
        chance = random.Random(7)
        with self.serving() as server:
            for _ in range(KILLS):
                before = self.acknowledged()
                self.kill(server, chance.uniform(0, 2 * self.life))
                done = self.acknowledged() - before
                change = 2.0 if not done else 1.2 if done < SOME else 0.8 if done > MANY else 1.0
                self.life = min(max(self.life * change, SHORTEST), LONGEST)
                time.sleep(self.restart)  # lets the server finish a request before the next writer asks it
        assert self.acknowledged() > KILLS / 4
        return self.acknowledged()

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen[str]]:
        """Run the process that forks the writers, and end it and all writers afterwards."""
        command, pipe = self.command, subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as server:
            try:
                yield server
            finally:
                os.killpg(server.pid, signal.SIGKILL)

    def kill(self, server: subprocess.Popen[str], seconds: float) -> None:
        """Start a writer and kill it after some seconds."""
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write("\n")
        server.stdin.flush()
        pid = int(server.stdout.readline())
        time.sleep(seconds)  # the random moment of the kill
        os.kill(pid, signal.SIGKILL)
        assert int(server.stdout.readline()) == signal.SIGKILL, "the writer was not killed"


def expected(upto: int) -> list[str]:
    """Return the ids of all records up to a number."""
    return ids_of(number for number in range(1, upto + 1) if number % NOT_ROUTED)


@pytest.mark.parametrize("compress", ["gzip", "none"])
def test_file(tmp_path: Path, compress: str) -> None:
    """A folder has each record once and in order: all acknowledged ones and at most one more batch."""
    sink = f"FileSink({str(tmp_path / 'events')!r}, compress={compress!r}, max_bytes=6000)"
    acknowledged = Writers(sink, tmp_path).run()
    with closing(FileSink(tmp_path / "events")) as healed:  # the last writer was killed too
        assert healed.last_position(STREAM) is not None
    found = ids(bodies(tmp_path / "events"))
    assert found[: len(expected(acknowledged))] == expected(acknowledged)
    assert found == expected(acknowledged + 4)[: len(found)]


def test_folder_of_objects(tmp_path: Path) -> None:
    """A folder used as an object store has each record once and in order, and no partial objects."""
    acknowledged = Writers(f"ObjectStoreSink('file://{tmp_path}/events')", tmp_path).run()
    found = ids(objects(LocalStore(tmp_path / "events")))
    assert found[: len(expected(acknowledged))] == expected(acknowledged)
    assert found == expected(acknowledged + 4)[: len(found)]


def test_s3(tmp_path: Path, moto: Moto) -> None:
    """A bucket has each record once and in order, even if the answer to a write was lost."""
    moto.make_bucket("killed")
    sink = f"ObjectStoreSink('s3://killed/events', options={moto.options()})"
    acknowledged = Writers(sink, tmp_path, 0.03).run()
    store = S3Store("killed", client_options={"allow_http": True}, **moto.options())
    found = ids(objects(store))
    assert found[: len(expected(acknowledged))] == expected(acknowledged)
    assert found == expected(acknowledged + 4)[: len(found)]


def test_webhook(tmp_path: Path) -> None:
    """A webhook has every record in order, with at most one batch repeated per kill."""
    with closing(Scripted()) as server:
        sink = f"Checkpointed(WebhookSink({server.url!r}), {str(tmp_path / 'positions.json')!r})"
        acknowledged = Writers(sink, tmp_path, 0.01).run()
        found = ids(json.loads(line) for asked in server.requests for line in asked.body.split(b"\n")[:-1])
    once = list(dict.fromkeys(found))
    assert once[: len(expected(acknowledged))] == expected(acknowledged)
    assert len(found) - len(once) <= 4 * KILLS


def test_elasticsearch(tmp_path: Path) -> None:
    """Elasticsearch has each record once, although the last batch of each writer is sent again."""
    with closing(Elasticsearch()) as server:
        sink = f"Checkpointed(ElasticsearchSink({server.url!r}), {str(tmp_path / 'positions.json')!r})"
        acknowledged = Writers(sink, tmp_path, 0.01).run()
        created = list(server.created)
    assert len(created) == len(set(created)) == len(server.documents)
    assert created[: len(expected(acknowledged))] == expected(acknowledged)
