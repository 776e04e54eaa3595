"""An event crosses exactly the modules that the architecture page lists."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

import kevents
from kevents.testing import APIServer
from tests.support.sinks import PATIENCE

if TYPE_CHECKING:
    from types import FrameType

PACKAGE = Path(kevents.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
WARM_UP = 20
MOST = 12
"""Modules that a reader has to follow."""


class Crossed:
    """The modules of kevents in which a function is entered, in their order."""

    def __init__(self) -> None:
        self.modules: dict[str, None] = {}
        self.counting = False

    def enter(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a call. The embedded server runs in this process, too, and is not counted."""
        if self.counting and event == "call":
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(PACKAGE) and "testing" not in path.parts:
                self.modules[path.relative_to(PACKAGE).as_posix()] = None


@pytest.fixture
def crossed() -> Any:
    """Counts in threads that start from now on, and in this one on demand."""
    found = Crossed()
    threading.setprofile(found.enter)
    yield found
    threading.setprofile(None)


def pod(name: str) -> dict[str, Any]:
    """A manifest."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"}}


def _await_delivered(broadcaster: kevents.EventBroadcaster, number: int) -> None:
    until = monotonic() + PATIENCE
    delivered = 0
    while delivered < number and monotonic() < until:
        threading.Event().wait(0.001)
        sink = broadcaster.statistics().watchers[0].sink
        assert sink is not None
        delivered = sink.delivered
    assert delivered == number


def test_the_modules_that_an_event_crosses(crossed: Crossed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeat and an event about a new object cross the modules on the page, from the call to the HTTP request."""
    with APIServer() as server, kevents.EventBroadcaster() as broadcaster:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config")))
        broadcaster.start_recording_to_sink(kevents.CoreV1EventSink(), senders=1)
        recorder = broadcaster.new_recorder("a-test")
        for number in range(WARM_UP):
            recorder.event(pod(f"web-{number % 5}"), "Normal", "Warm", "the same")
        _await_delivered(broadcaster, WARM_UP)
        crossed.counting = True
        sys.setprofile(crossed.enter)
        recorder.event(pod("web-1"), "Normal", "Warm", "the same")
        recorder.event(pod("web-new"), "Normal", "Warm", "the same")
        sys.setprofile(None)
        _await_delivered(broadcaster, WARM_UP + 2)
        crossed.counting = False
    (section,) = re.findall(
        r"^## An event's way\n(.*?)^## ", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    listed = re.findall(r"^- `(_\w+/\w+\.py)` ", section, re.MULTILINE)
    assert sorted(crossed.modules) == sorted(listed)
    assert len(listed) <= MOST
