"""An S3 server for tests: moto in a subprocess."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.support.polling import poll

HOW_TO_GET: Final = "moto_server is missing: pip install 'moto[server]', and set MOTO_SERVER to the program"
SECRET: Final = "wJalrXUtnFEMIexampleSecretKey"


def program() -> str | None:
    """Return the path of the server program, or None if it is not installed."""
    return os.environ.get("MOTO_SERVER") or shutil.which("moto_server")


class Moto:
    """A running server.

    Args:
        port: The port it listens on.
        log: The file with its output.
    """

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log

    def options(self, **more: Any) -> dict[str, Any]:
        """Return the options for opening a store on this server."""
        plain = {"endpoint": f"http://127.0.0.1:{self.port}", "region": "us-east-1"}
        return {**plain, "access_key_id": "AKIAEXAMPLEEXAMPLE", "secret_access_key": SECRET, **more}

    def request(self, method: str, path: str) -> tuple[int, bytes]:
        """Send an unsigned request. The server checks no signatures."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def make_bucket(self, name: str) -> None:
        """Create a bucket."""
        assert self.request("PUT", f"/{name}")[0] == 200


@contextlib.contextmanager
def served(folder: Path) -> Iterator[Moto]:
    """Run the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program() or "", "-H", "127.0.0.1", "-p", str(port)]
    log = folder / "moto.log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            moto = Moto(port, log)
            _wait(moto)
            yield moto
        finally:
            process.terminate()


def _wait(moto: Moto) -> None:
    def listens() -> bool:
        try:
            moto.request("GET", "/moto-api/")
        except OSError:
            return False
        return True

    assert poll(listens, 60), moto.log.read_text()
