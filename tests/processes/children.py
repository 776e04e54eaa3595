"""Records events in child processes that end by themselves: the event of every child must arrive.

Arguments: the file of the sink, the kind of child, the start method, and where the broadcaster is made.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import kevents

warnings.simplefilter("ignore", DeprecationWarning)  # forking a process that has threads is the subject
_, out, kind, method, where = sys.argv
NUMBER = 2


@functools.lru_cache
def events() -> kevents.EventRecorder:
    """The recorder of this process and its forked children. A child may be the first to import kevents."""
    from tests.processes.common import recorder

    return recorder()


if where == "parent":
    events()


def work(number: int) -> int:
    """Record one event as the last action."""
    from tests.processes.common import REFERENCE

    events().event(REFERENCE, "Normal", "Worked", f"number {number}")
    return number


def main() -> None:
    """Record each number in a child."""
    context = multiprocessing.get_context(method)
    numbers = range(NUMBER)
    if kind == "process":
        for number in numbers:
            process = context.Process(target=work, args=(number,))
            process.start()
            process.join()
    elif kind == "pool":
        pool = context.Pool(2, maxtasksperchild=1)
        pool.map(work, numbers, chunksize=1)
        pool.close()
        pool.join()
    elif kind == "executor":
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            list(executor.map(work, numbers))
    elif kind == "billiard":
        import billiard

        for number in numbers:
            process = billiard.Process(target=work, args=(number,))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
