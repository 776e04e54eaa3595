"""Fixtures: an embedded and a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kevents.testing._apiserver.server import APIServer
from tests.support.real_server import HOW_TO_GET, RealServer, assets
from tests.support.subjects import EmbeddedSubject, RealSubject, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def api_server() -> Iterator[APIServer]:
    """Give an embedded API server for one test."""
    with APIServer() as server:
        yield server


@pytest.fixture(scope="session")
def real_server() -> Iterator[RealServer]:
    """Give a real API server for the whole session; skip without the programs."""
    if assets() is None:
        pytest.skip(HOW_TO_GET)
    with RealServer() as server:
        yield server


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.e2e)])
def wire(request: pytest.FixtureRequest) -> Wire:
    """Give raw requests to an API server: each test runs against the embedded and the real one."""
    if request.param == "real":
        return Wire(RealSubject(request.getfixturevalue("real_server")))
    return Wire(EmbeddedSubject(request.getfixturevalue("api_server")))
