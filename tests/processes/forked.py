"""Runs programs in forks of a process that has imported their libraries, because the imports take most of their time.

Each line on standard input is a JSON object with the path of a program, its environment, and the files for its output.
The answer is a line with its exit status.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys
from contextlib import suppress

LIBRARIES = (
    "kubernetes.client",
    "kubernetes.config",
    "kubernetes.aio.client",
    "kubernetes.aio.config",
    "kopf",
    "kevents.aio",
    "kevents.export",
    "kevents.kopf",
    "kevents.testing",
)

PARTS = {"kubernetes.client": ("V1Pod", "CoreV1Api"), "kubernetes.aio.client": ("V1Pod",)}
"""What the programs use of a library that loads each part at its first use."""


def load() -> None:
    """Import the libraries, except those that are not installed."""
    for library in LIBRARIES:
        with suppress(ImportError):
            module = importlib.import_module(library)
            for name in PARTS.get(library, ()):
                getattr(module, name, None)
    gc.freeze()


def begin(order: dict[str, str], environment: dict[str, str]) -> str:
    """Replace the environment and the standard streams. Returns the path of the program."""
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate((os.devnull, order["stdout"], order["stderr"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    return order["program"]


def serve() -> str:
    """Fork for each line. Returns the path of a program in a child, an empty text after the last line."""
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if not pid:
            order = json.loads(line)
            return begin(order, order.pop("environment"))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()
    return ""


if __name__ == "__main__":
    load()
    program = serve()
    if program:
        sys.argv = [program]
        variables = runpy.run_path(program, run_name="__main__")  # they live until the interpreter ends
