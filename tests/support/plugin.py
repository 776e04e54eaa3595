"""Fixtures that give API servers, and how the tests are spread over processes."""

from __future__ import annotations

import gc
import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from kevents.testing._apiserver.server import APIServer
from tests.support.programs import Programs, started_programs
from tests.support.real_server import RealServer, required_assets
from tests.support.subjects import EmbeddedSubject, RealSubject, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

# Servers that live for the whole session. All tests of one server run in the same worker, which starts it once.
SHARED = ("real_server", "moto")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use two processes per core for folders, because many tests wait, and this process for named files.

    Starting a worker takes longer than running most files.
    """
    named = any(".py" in argument for argument in config.args)
    return 0 if named or config.option.collectonly else 2 * (os.cpu_count() or 1)


def pytest_configure() -> None:
    """Trust no authority of the system: to load them takes 30 ms for each TLS context, and no test needs them."""
    os.environ["SSL_CERT_FILE"] = os.devnull


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check that ids are the same in each process, and keep tests that share a server in one worker.

    Raises:
        pytest.UsageError: If an id has the address of an object, which differs in each process.
    """
    unstable = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unstable:
        raise pytest.UsageError(f"ids with the address of an object: {unstable}")
    for item in items:
        group = worker_group(item)
        if group:
            item.add_marker(pytest.mark.xdist_group(group))


def worker_group(item: pytest.Item) -> str | None:
    """The worker group of a test; None if the test may run in any worker."""
    names = set(getattr(item, "fixturenames", ()))
    if "wire" in names and item.callspec.params["wire"] == "real":  # type: ignore[attr-defined]
        return "real_server"
    for name in SHARED:
        if name in names:
            return name
    return item.nodeid.partition("::")[0] if item.get_closest_marker("e2e") else None


def pytest_collection_finish() -> None:
    """Keep the garbage collector away from pytest's own objects, which are very numerous."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the reasons of all skips, each in one line with the number of its tests."""
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped"))
    for reason, tests in reasons.most_common():
        terminalreporter.write_line(f"skipped {tests}: {reason}")


@pytest.fixture
def api_server() -> Iterator[APIServer]:
    """An embedded API server for one test."""
    with APIServer() as server:
        yield server


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    """Runs Python programs, one at a time."""
    with started_programs() as started:
        yield started


@pytest.fixture(scope="session")
def real_server() -> Iterator[RealServer]:
    """A real API server for the whole session. Skips the test without the programs."""
    required_assets()
    with RealServer() as server:
        yield server


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.e2e)])
def wire(request: pytest.FixtureRequest) -> Wire:
    """Raw requests to an API server: each test runs against the embedded and the real one."""
    if request.param == "real":
        return Wire(RealSubject(request.getfixturevalue("real_server")))
    return Wire(EmbeddedSubject(request.getfixturevalue("api_server")))
