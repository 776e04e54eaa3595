"""Python programs in processes of their own that start quickly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
# A process may fork while kevents has threads, in spite of the advice of Python.
OPTIONS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning", "-X", "dev")


class Programs:
    """Runs Python programs in Python's development mode. Warnings are errors.

    Args:
        process: A process of ``tests.processes.forked``. None where Python cannot fork.
        kubeconfig: The path in its variable ``KUBECONFIG``, which the client reads when it is imported.
    """

    def __init__(self, process: subprocess.Popen[str] | None, kubeconfig: Path) -> None:
        self._process = process
        self._kubeconfig = kubeconfig

    def run(self, program: Path, kubeconfig: Path, output: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program until it ends.

        Args:
            program: The path of the program.
            kubeconfig: Its kubeconfig.
            output: A folder for its output.
            variables: More environment variables.
        """
        self._kubeconfig.write_bytes(kubeconfig.read_bytes())
        environment = {**os.environ, "KUBECONFIG": str(self._kubeconfig), **variables}
        if self._process is None:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
            command = [sys.executable, *OPTIONS, str(program)]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        files = {"stdout": output / "stdout", "stderr": output / "stderr"}
        for file in files.values():
            file.unlink(missing_ok=True)
        order = {"program": program, "environment": environment, **files}
        self._process.stdin.write(json.dumps(order, default=str) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        stdout, stderr = (file.read_text(encoding="utf-8") for file in files.values())
        return subprocess.CompletedProcess([str(program)], status, stdout, stderr)


@contextmanager
def started_programs() -> Iterator[Programs]:
    """Start the process that programs are forked from."""
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder, "kubeconfig")
        if not hasattr(os, "fork"):
            yield Programs(None, kubeconfig)
            return
        with subprocess.Popen(
            [sys.executable, *OPTIONS, "-m", "tests.processes.forked"],
            cwd=ROOT,
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield Programs(process, kubeconfig)
            assert process.stdin is not None
            process.stdin.close()
