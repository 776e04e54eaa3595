"""Shared fixtures of the export tests: an S3 server for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.export.moto import HOW_TO_GET, Moto, program, served


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """An S3 server. The test is skipped if the program is not installed."""
    if program() is None:
        pytest.skip(HOW_TO_GET)
    with served(tmp_path_factory.mktemp("moto")) as server:
        yield server
