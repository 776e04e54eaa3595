"""The pytest plugin provides its fixtures, and costs nothing in tests without them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/testing.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
# Load the plugin by its module, even if it is not installed as an entry point, without this repository's options.
PLUGIN = ("-p", "no:kevents", "-p", "kevents.pytest_plugin")


def run_pytest(
    folder: Path, code: str, *arguments: str, path: tuple[Path, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a file of tests in its own folder, with warnings as errors.

    Installed plugins are loaded only with a path, because they take most of the time.
    """
    (folder / "test_it.py").write_text(code, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    paths = os.pathsep.join(map(str, (*path, ROOT)))
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": paths,
            "PYTEST_ADDOPTS": "",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "" if path else "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def outcome(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of pytest's output, without its duration."""
    return re.sub(r" in [\d.]+s.*", "", done.stdout.strip().splitlines()[-1])


def test_page(tmp_path: Path) -> None:
    """Each block of the page is a file of passing tests."""
    tests = {f"test_{number}.py": block.count("def test_") for number, block in enumerate(BLOCKS)}
    for file, block in zip(tests, BLOCKS, strict=True):
        (tmp_path / file).write_text(block, encoding="utf-8")
    done = run_pytest(tmp_path, "", "-rp", *PLUGIN)
    assert outcome(done) == f"{sum(tests.values())} passed", done.stdout + done.stderr
    assert min(tests.values()) > 0
    assert {file: done.stdout.count(f"PASSED {file}::") for file in tests} == tests


FIXTURES = """
import urllib.request
import kevents
import kevents.testing as kt

def test_kinds(fake_recorder, event_sink, event_clock, events_api_server):
    found = fake_recorder, event_sink, event_clock, events_api_server
    assert [type(f) for f in found] == [kt.FakeRecorder, kt.FakeSink, kt.FakeClock, kt.APIServer]
    assert isinstance(fake_recorder, kevents.Recorder)
    assert not fake_recorder.events
    assert not event_sink.requests
    assert event_clock() == kt.FakeClock()()

def test_new_for_each_test(fake_recorder, event_clock):
    fake_recorder.event(kevents.ObjectReference(kind="Pod", name="p"), "Normal", "R", "m")
    event_clock.advance(1)

def test_server(events_api_server):
    with urllib.request.urlopen(events_api_server.url + "/readyz", timeout=60) as answer:
        assert answer.status == 200
"""


def test_fixtures(tmp_path: Path) -> None:
    """Each test gets a new fixture of the documented class."""
    done = run_pytest(tmp_path, FIXTURES, *PLUGIN)
    assert outcome(done) == "3 passed", done.stdout + done.stderr
    listed = set(re.findall(r"^\| `(\w+)` \| `(\w+)`", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    expected = {
        ("fake_recorder", "FakeRecorder"),
        ("event_sink", "FakeSink"),
        ("event_clock", "FakeClock"),
        ("events_api_server", "APIServer"),
    }
    assert listed == expected


def test_server_ends(tmp_path: Path) -> None:
    """The server's threads end with the test, even if it fails."""
    code = """
import threading

def test_it(events_api_server):
    raise LookupError("as asked")

def test_later():
    assert [t.name for t in threading.enumerate() if t is not threading.main_thread()] == []
"""
    done = run_pytest(tmp_path, code, *PLUGIN)
    assert outcome(done) == "1 failed, 1 passed", done.stdout


LOADED = """
import sys

def test_loaded():
    loaded = [name for name in sys.modules if name.split(".")[0] in ("kevents", "kubernetes", "cryptography")]
    assert "kevents.pytest_plugin" in loaded
    assert not [n for n in loaded if n.startswith(("kevents.testing", "kubernetes", "cryptography"))]
"""


def test_cheap(tmp_path: Path) -> None:
    """Nothing heavy is imported before a fixture is used, because every pytest run loads the plugin."""
    done = run_pytest(tmp_path, LOADED, *PLUGIN)
    assert outcome(done) == "1 passed", done.stdout


def entry_point(folder: Path) -> None:
    """Install the entry point as the distribution does."""
    info = folder / "kevents_stand_in-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kevents-stand-in\nVersion: 0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[pytest11]\nkevents = kevents.pytest_plugin\n", encoding="utf-8")


def test_found_by_its_entry_point(tmp_path: Path) -> None:
    """An installed plugin needs no option, and ``-p no:kevents`` disables it."""
    site = tmp_path / "site"
    site.mkdir()
    entry_point(site)
    others = {point.name for point in entry_points(group="pytest11")} - {"kevents"}
    without_others = [argument for name in sorted(others) for argument in ("-p", f"no:{name}")]
    code = "def test_it(fake_recorder):\n    assert fake_recorder.events == ()\n"
    assert outcome(run_pytest(tmp_path, code, *without_others, path=(site,))) == "1 passed"
    without = run_pytest(tmp_path, code, *without_others, "-p", "no:kevents", path=(site,))
    assert outcome(without) == "1 error"
    assert "fixture 'fake_recorder' not found" in without.stdout


def test_declared() -> None:
    """The distribution declares the entry point."""
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'\[project\.entry-points\.pytest11\]\nkevents = "kevents\.pytest_plugin"\n', declared)
