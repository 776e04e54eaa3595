"""Two hundred writers, each killed with SIGKILL at a random moment: nothing is lost, nothing doubled."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from obstore.store import LocalStore, S3Store

from kevents.export import FileSink
from tests.export.batches import STREAM, ids, ids_of
from tests.export.moto import Moto
from tests.export.test_file import bodies
from tests.export.test_objectstore import bodies as objects
from tests.processes.export_writer import NOT_ROUTED

KILLS = 200
LONGEST_LIFE = 0.06


def killed(sink: str, folder: Path, longest: float = LONGEST_LIFE, restart: float = 0.0) -> int:
    """Let writers be killed; give up to where the last acknowledged.

    Args:
        sink: An expression with the names of `kevents.export`.
        folder: For the counter.
        longest: Seconds that a writer lives at most.
        restart: Seconds until the next one begins.
    """
    counter = folder / "acknowledged"
    counter.write_bytes(bytes(8))
    chance = random.Random(7)
    command = [sys.executable, "-m", "tests.processes.export_writer", str(counter), sink]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for _ in range(KILLS):
            server.stdin.write("\n")
            server.stdin.flush()
            pid = int(server.stdout.readline())
            time.sleep(chance.uniform(0, longest))  # the moment is what is random
            os.kill(pid, signal.SIGKILL)
            assert signal.SIGKILL == int(server.stdout.readline()), "the writer ended by itself"
            time.sleep(restart)  # a server ends what it has begun sooner than a new process is there to ask
        server.stdin.close()
    [acknowledged] = struct.unpack("<q", counter.read_bytes())
    assert acknowledged > KILLS
    return int(acknowledged)


def expected(upto: int) -> list[str]:
    """The ids of all records up to this one."""
    return ids_of(number for number in range(1, upto + 1) if number % NOT_ROUTED)


@pytest.mark.slow
@pytest.mark.parametrize("compress", ["gzip", "none"])
def test_file(tmp_path: Path, compress: str) -> None:
    """A folder of small segments holds each record once, in order: all that was acknowledged, and one batch at most."""
    sink = f"FileSink({str(tmp_path / 'events')!r}, compress={compress!r}, max_bytes=6000)"
    acknowledged = killed(sink, tmp_path)
    with closing(FileSink(tmp_path / "events")) as healed:  # the last one was killed, too
        assert healed.last_mark(STREAM) is not None
    found = ids(bodies(tmp_path / "events"))
    assert expected(acknowledged) == found[: len(expected(acknowledged))]
    assert expected(acknowledged + 4)[: len(found)] == found


@pytest.mark.slow
def test_folder_of_objects(tmp_path: Path) -> None:
    """A folder as an object store holds each record once, in order, and nothing half written."""
    acknowledged = killed(f"ObjectStoreSink('file://{tmp_path}/events')", tmp_path, 0.04)
    found = ids(objects(LocalStore(tmp_path / "events")))
    assert expected(acknowledged) == found[: len(expected(acknowledged))]
    assert expected(acknowledged + 4)[: len(found)] == found


@pytest.mark.slow
def test_s3(tmp_path: Path, moto: Moto) -> None:
    """A bucket over HTTP holds each record once, in order: also where the answer found nobody any more."""
    moto.make_bucket("killed")
    acknowledged = killed(f"ObjectStoreSink('s3://killed/events', options={moto.options()})", tmp_path, 0.1, 0.03)
    store = S3Store("killed", client_options={"allow_http": True}, **moto.options())
    found = ids(objects(store))
    assert expected(acknowledged) == found[: len(expected(acknowledged))]
    assert expected(acknowledged + 4)[: len(found)] == found
