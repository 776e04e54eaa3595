"""Fixtures that give API servers, and how the tests are spread over processes."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from kevents._model.wire import pluralize
from kevents.testing._apiserver.server import APIServer
from tests.support.programs import Programs, started_programs
from tests.support.real_server import HOW_TO_GET, RealServer, assets, required_assets
from tests.support.subjects import EmbeddedSubject, RealSubject, Wire

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

# Servers and processes that live for the whole session. All tests of one run in the same worker, which starts it once.
SHARED = ("real_server", "moto", "programs")
# Tests of many official clients. They run in one worker, because an import of a client takes up to 3 s.
OFFICIAL = (
    "tests/clients/",
    "tests/delivery/test_broken_namespace.py",
    "tests/model/test_objects.py",
    "tests/model/test_reference",
    "tests/runtime/test_process_bound.py",
    "tests/test_ports.py",
)
WAITING = "tests/clients/test_transport.py"  # of them: its servers never answer, so it has a worker of its own
LONGEST_VALUE = 60  # in an id


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


def pytest_make_parametrize_id(val: object) -> str | None:
    """Cut long texts in ids: each worker sends every id, and some texts have a million characters."""
    if isinstance(val, (str, bytes)) and len(val) > LONGEST_VALUE:
        start = val[:LONGEST_VALUE]
        text = start if isinstance(start, str) else start.decode("latin-1")
        return text.encode("unicode_escape").decode("ascii") + "..."
    return None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Check the ids, keep tests that share a server in one worker, and skip all tests without a real server as one.

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
    yield
    if assets() is None:
        skip_as_one(config, items)


def skip_as_one(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests with a real API server but the first, which is skipped for all: each skip takes 10 ms."""
    first, *others = [item for item in items if item.get_closest_marker("e2e")] or [None]
    if first:
        first.add_marker(pytest.mark.skip(f"{pluralize(1 + len(others), 'test')}: {HOW_TO_GET}"))
        config.hook.pytest_deselected(items=others)
        left_out = set(others)
        items[:] = [item for item in items if item not in left_out]


def worker_group(item: pytest.Item) -> str | None:
    """The worker group of a test; None if the test may run in any worker."""
    names = set(getattr(item, "fixturenames", ()))
    if "wire" in names and item.callspec.params["wire"] == "real":  # type: ignore[attr-defined]
        return "real_server"
    for name in SHARED:
        if name in names:
            return name
    if item.get_closest_marker("e2e"):
        return item.nodeid.partition("::")[0]
    if item.nodeid.startswith(WAITING):
        return WAITING
    return "official clients" if item.nodeid.startswith(OFFICIAL) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector away from pytest's own objects and from modules, which are very numerous."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """Skip a test of a regex where google-re2 is not installed: it has no wheels for Python 3.15 yet."""
    try:
        return (yield)
    except Exception as error:
        if "a regex needs google-re2" in str(error) and importlib.util.find_spec("re2") is None:
            pytest.skip("needs google-re2")
        raise


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
