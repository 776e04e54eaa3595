"""kevents makes the same events.k8s.io requests as client-go v0.36.3, with one deliberate difference.

The difference: client-go's identity includes the objects' resourceVersion and fieldPath, so that an object that
changes never forms a series. kevents leaves them out by default. With client-go's identity as `key_func` every trace
matches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from kevents._model.objects import EventSource, ObjectReference
from kevents.events import EventRecorder, SeriesEvent, key_without_note
from tests.support.series import NANO, START, World

if TYPE_CHECKING:
    from kevents._broadcast.recorder import Publisher

TRACES = Path(__file__).parent / "traces" / "events-v1"
DIFFERENT = "resource-version-in-identity"


def client_go_key(event: SeriesEvent) -> Hashable:
    """client-go's identity: it compares whole references."""
    return key_without_note(event), event.regarding, event.related


class Wiring:
    """A publisher without threads that passes recorded events to a simulated world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.refused = 0
        self.recorder = EventRecorder(EventSource("c", "c-<host>"), cast("Publisher", self))

    def now(self) -> int:
        """The world's time."""
        return START + round(self._world.now * NANO)

    def publish(self, event: SeriesEvent) -> None:
        """Pass the event on."""
        self._world.accept([event])

    def refuse(self, *_: object) -> None:
        """Count a refusal."""
        self.refused += 1


def load() -> list[Any]:
    """All traces, as pytest parameters."""
    return [
        pytest.param(json.loads(path.read_text(encoding="utf-8")), id=path.stem)
        for path in sorted(TRACES.glob("*.json"))
    ]


def replay(trace: dict[str, Any], key_func: Callable[[SeriesEvent], Hashable]) -> list[list[dict[str, Any]]]:
    """The requests of kevents for each call of a trace."""
    world = World(key_func=key_func)
    wiring = Wiring(world)
    requests = []
    for call in trace["calls"]:
        world.advance(1)
        if call.get("server_forgets_before"):
            world.stored.clear()
        before, refused = len(world.requests), wiring.refused
        related = ObjectReference.from_dict(call["related"]) if "related" in call else None
        regarding = ObjectReference.from_dict(call["regarding"])
        wiring.recorder.eventf(regarding, related, call["type"], call["reason"], call["action"], call["note"])
        made = world.requests[before:]
        if wiring.refused > refused:
            assert call["requests"] == [], "kevents refuses only events that client-go refuses"
        requests.append([{"verb": request.verb, "body": comparable(request.body)} for request in made])
    return requests


def comparable(value: Any) -> Any:
    """A body without empty fields and type metadata, and with placeholders for times."""
    if isinstance(value, dict):
        cleaned = {key: comparable(item) for key, item in value.items()}
        typed = "metadata" in cleaned
        return {
            key: item
            for key, item in cleaned.items()
            if item not in ("", None, {}) and not (typed and key in {"apiVersion", "kind"})
        }
    if isinstance(value, str):
        value = re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$", "<micro time>", value)
        return re.sub(r"\.[0-9a-f]{16}$", ".<hex>", value)
    return value


def expected_of(trace: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The requests of client-go for each call."""
    return [
        [{"verb": request["verb"], "body": comparable(request["body"])} for request in call["requests"]]
        for call in trace["calls"]
    ]


@pytest.mark.parametrize("trace", load())
def test_with_client_go_identity(trace: dict[str, Any]) -> None:
    """With client-go's identity every call makes the requests of client-go."""
    assert replay(trace, client_go_key) == expected_of(trace)


@pytest.mark.parametrize("trace", load())
def test_with_default_identity(trace: dict[str, Any]) -> None:
    """With the default identity the requests are the same, except that a new version of an object joins its series."""
    expected = expected_of(trace)
    if trace["name"] == DIFFERENT:
        expected[1] = [{"verb": "patch", "body": {"series": {"count": 2, "lastObservedTime": "<micro time>"}}}]
    assert replay(trace, key_without_note) == expected


def test_all_traces() -> None:
    """All traces are loaded, including the one that differs."""
    names = [path.stem for path in TRACES.glob("*.json")]
    assert len(names) == 7
    assert DIFFERENT in names
