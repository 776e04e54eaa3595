"""Helpers of the measurements: the server process, programs that print JSON, and the machine's description."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

__all__ = ["NoGo", "Server", "build_client_go", "described", "machine", "run_json", "say", "serving"]

ROOT: Final = Path(__file__).parents[2]
_GO_PROGRAM: Final = Path(__file__).parent / "clientgo"
_PATIENCE: Final = 600.0


class NoGo(Exception):  # noqa: N818 - not an error
    """Raised with the reason if client-go cannot be measured on this machine."""


@dataclass(frozen=True)
class Server:
    """A running scripted server.

    Attributes:
        url: The address, without the path segment for the delay.
        ca_file: The certificate authority to trust; empty without TLS.
    """

    url: str
    ca_file: str

    def counters(self) -> dict[str, int]:
        """Return the numbers of connections and requests so far. This request counts as a connection."""
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        with urlopen(self.url, context=context) as answer:
            found: dict[str, int] = json.load(answer)
        return found


@contextmanager
def serving(*, tls: bool = False) -> Iterator[Server]:
    """Run the scripted server in a separate process."""
    command = [sys.executable, "-m", "tests.bench.server", *(["--tls"] if tls else [])]
    with (
        tempfile.TemporaryDirectory(prefix="kevents-bench-") as folder,
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        ca_file = Path(folder) / "ca.pem"
        ca_file.write_text(said["ca"], encoding="ascii")
        try:
            yield Server(said["url"], str(ca_file) if tls else "")
        finally:
            process.stdin.close()


def run_json(command: list[str], given: str = "", environment: Mapping[str, str] | None = None) -> Any:
    """Run a program and parse its output as JSON."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        input=given,
        # Compiled modules are kept, as in an installed package.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", **(environment or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=_PATIENCE,
    )
    return json.loads(done.stdout)


@contextmanager
def build_client_go() -> Iterator[str]:
    """Build the client-go program and yield its path.

    Raises:
        NoGo: If Go is missing or the build fails, for example without a network.
    """
    go = shutil.which("go")
    if go is None:
        raise NoGo("Go is not installed")
    with tempfile.TemporaryDirectory(prefix="kevents-bench-") as folder:
        program = str(Path(folder) / "clientgo")
        built = subprocess.run(
            [go, "build", "-o", program, "."], cwd=_GO_PROGRAM, capture_output=True, text=True, check=False
        )
        if built.returncode:
            raise NoGo(f"its program cannot be built: {built.stderr.strip()[-500:]}")
        yield program


def machine() -> dict[str, str]:
    """Return a description of the machine, the software and the date."""
    go = shutil.which("go")
    told = subprocess.run([go, "version"], capture_output=True, text=True, check=True).stdout if go else ""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kubernetes client": version("kubernetes"),
        "go": told.split()[2].removeprefix("go") if told else "none",
        "client-go": _client_go_version(),
        "load before": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
    }


def described(told: Mapping[str, str]) -> str:
    """Return the date, the versions and the load as one line. The page describes the machine once."""
    return (
        f"{told['date']}, {told['python']}, kubernetes client {told['kubernetes client']}, load {told['load before']}"
    )


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or "unknown"


def _client_go_version() -> str:
    found = re.search(r"k8s\.io/client-go (\S+)", (_GO_PROGRAM / "go.mod").read_text(encoding="utf-8"))
    return found.group(1) if found else "unknown"


def say(text: str) -> None:
    """Print a message for the user."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
