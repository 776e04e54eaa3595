"""Writes to a sink from its position until it is killed. Each writer is forked from a process that has imported all.

The first argument is a file whose eight bytes hold the acknowledged resourceVersion, the second one the sink as an
expression. Each line on standard input starts a writer. Its process id is printed, and then its exit status.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import sys
from pathlib import Path

import obstore.store

import kevents.export
from kevents.export import Batch, Sink
from tests.export.batches import STREAM, position, record

NOT_ROUTED = 7
"""Every seventh record is not routed: the position moves past it."""


def write(sink: Sink, acknowledged: mmap.mmap) -> None:
    """Write small batches for ever, some of them empty."""
    chance = random.Random()
    held = sink.last_position(STREAM)
    rv = held.rv if held else 0
    while True:
        upto = rv + chance.randint(1, 4)
        records = [record(number) for number in range(rv + 1, upto + 1) if number % NOT_ROUTED]
        sink.write(Batch(records, position(upto, seconds=upto)))
        acknowledged[:8] = struct.pack("<q", upto)
        rv = upto


def tell(number: int) -> None:
    """Print a number."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def main() -> None:
    """Fork a writer for each line. The modules that sinks import when they are built are imported before."""
    assert obstore.store.S3Store
    with Path(sys.argv[1]).open("r+b") as file:
        acknowledged = mmap.mmap(file.fileno(), 8)
    for _ in sys.stdin:
        pid = os.fork()
        if not pid:
            write(eval(sys.argv[2], vars(kevents.export)), acknowledged)
        tell(pid)
        tell(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main()
