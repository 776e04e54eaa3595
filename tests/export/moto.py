"""An S3 server to write to: moto's, as a process of its own."""

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

HOW_TO_GET: Final = "no moto_server: pip install 'moto[server]' somewhere, and name the program in MOTO_SERVER"
SECRET: Final = "wJalrXUtnFEMIexampleSecretKey"


def program() -> str | None:
    """Where the server's program is; None if there is none."""
    return os.environ.get("MOTO_SERVER") or shutil.which("moto_server")


class Moto:
    """A running server.

    Args:
        port: Where it listens.
        log: What it has written.
    """

    def __init__(self, port: int, log: Path) -> None:
        """Keep where it is."""
        self.port = port
        self.log = log

    def options(self, **more: Any) -> dict[str, Any]:
        """What a store for it is opened with."""
        plain = {"endpoint": f"http://127.0.0.1:{self.port}", "region": "us-east-1"}
        return {**plain, "access_key_id": "AKIAEXAMPLEEXAMPLE", "secret_access_key": SECRET, **more}

    def request(self, method: str, path: str) -> tuple[int, bytes]:
        """Make a request that is not signed; the server looks at no signature."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
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
