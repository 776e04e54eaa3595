"""Runs an operator in its own process with kopf's own runner; warnings are errors."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.polling import poll

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 60.0
CLIENTS = ("kubernetes", "kubernetes_asyncio", "pykube", "pydantic", "requests", "urllib3")
"""Client libraries, and what comes with them: an environment with only aiohttp and kopf has none."""


class Operator:
    """A context manager: runs ``kopf run FILE`` until the end of the block at the latest.

    Args:
        file: The operator.
        folder: For its log.
        kubeconfig: How it finds its server.
        namespace: The one that it watches, all if empty.
        environment: More for its environment.
        hidden: Packages that it cannot import, as if they were not installed.
    """

    def __init__(
        self,
        file: Path,
        folder: Path,
        kubeconfig: Path,
        *,
        namespace: str = "",
        environment: dict[str, str] | None = None,
        hidden: Sequence[str] = (),
    ) -> None:
        shadows = folder / "hidden"
        shadows.mkdir(exist_ok=True)
        for package in hidden:
            (shadows / f"{package}.py").write_text("raise ImportError('not installed')\n", encoding="ascii")
        where = ["-n", namespace] if namespace else ["-A"]
        self._command = [sys.executable, "-W", "error", "-m", "kopf", "run", "--standalone", *where, str(file)]
        paths = os.pathsep.join([str(shadows), str(ROOT)])
        more = {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": paths, "NAMESPACE": namespace, **(environment or {})}
        self._environment = {**os.environ, **more}
        self._log = folder / "operator.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it if it still runs."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(TIMEOUT)

    @property
    def log(self) -> str:
        """The log so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def said(self, pattern: str) -> list[str]:
        """The lines of its log that match a pattern."""
        return [line for line in self.log.splitlines() if re.search(pattern, line)]

    def wait_until(self, predicate: Callable[[], Any]) -> None:
        """Poll until the predicate holds. Fails when the process has ended, or after a minute."""
        assert self._process is not None
        process = self._process
        assert poll(predicate, TIMEOUT, lambda: process.poll() is None), self.log

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, as Kubernetes does, and return the exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(TIMEOUT)

    def processor_seconds(self) -> float:
        """Processor time that it has used so far (Linux)."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait(self) -> int:
        """Wait until it ends by itself, and return the exit status."""
        assert self._process is not None
        return self._process.wait(TIMEOUT)
