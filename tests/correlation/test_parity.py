"""kevents makes the same requests as client-go v0.36.3: every recorded trace is replayed, step by step."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kevents._correlation.correlator import NANO, CoreDecider, EventCorrelator
from kevents._correlation.options import CorrelatorOptions, spam_key_by_object_and_reason
from kevents._model.objects import Event
from kevents._model.wire import parse_time

if TYPE_CHECKING:
    from collections.abc import Hashable

TRACES = Path(__file__).parents[1] / "traces"
COMBINED = "(combined from similar events): "


def load(kind: str) -> list[Any]:
    """All traces of a kind, as pytest parameters."""
    return [
        pytest.param(json.loads(path.read_text(encoding="utf-8")), id=path.stem)
        for path in sorted((TRACES / kind).glob("*.json"))
    ]


def normal(value: Any) -> Any:
    """A JSON value without its empty fields."""
    if isinstance(value, dict):
        cleaned = {key: normal(item) for key, item in value.items()}
        return {key: item for key, item in cleaned.items() if item not in ("", None)}
    return [normal(item) for item in value] if isinstance(value, list) else value


def options_of(options: dict[str, Any], clock: Any, *, catch_up: bool) -> CorrelatorOptions:
    """The options of a trace."""
    options = dict(options)
    if options.pop("spam_key", None) == "by_object_and_reason":
        options["spam_key_func"] = spam_key_by_object_and_reason
    if options.pop("message_func", None) == "plain":
        options["message_func"] = lambda event: event.message
    return CorrelatorOptions(**options, clock=clock, catch_up=catch_up)


def as_recorded(step: dict[str, Any]) -> Event:
    """The event of a step as it reaches the sink."""
    body = step["event"]
    metadata = {key: body[key] for key in ("name", "namespace", "annotations") if key in body}
    event = Event.from_dict({**body, "metadata": metadata, "firstTimestamp": step["at"], "lastTimestamp": step["at"]})
    assert event.to_dict()["firstTimestamp"][:19] == step["at"][:19]
    return event


class Server:
    """The objects on the server of a trace."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}

    def expire(self, names: list[str]) -> None:
        """Remove events."""
        for key in [key for key in self.objects if "*" in names or key[1] in names]:
            del self.objects[key]

    def write(self, event: Event, patch: dict[str, Any] | None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Write as client-go does. Returns the requests, and the stored object."""
        key = (event.namespace, event.name)
        requests = []
        if patch is not None:
            answer = "ok" if key in self.objects else "not found"
            requests.append({"verb": "patch", "namespace": key[0], "name": key[1], "body": patch, "answer": answer})
            if answer == "ok":
                self.objects[key] = {**self.objects[key], **patch}
                return requests, self.objects[key]
        body = event.to_dict()
        self.objects[key] = body
        requests.append({"verb": "create", "namespace": key[0], "name": key[1], "body": body, "answer": "ok"})
        return requests, body


def comparable(request: dict[str, Any]) -> dict[str, Any]:
    """A request without its type metadata, which differs on purpose."""
    body = normal(request["body"])
    if request["verb"] == "create":
        body.pop("apiVersion", None)
        body.pop("kind", None)
    return {**request, "body": body}


def without_carried(request: dict[str, Any]) -> dict[str, Any]:
    """A create of an aggregate without the three fields that only kevents carries over."""
    body = {k: v for k, v in request["body"].items() if k not in ("reportingComponent", "reportingInstance")}
    metadata = {k: v for k, v in body.get("metadata", {}).items() if k != "annotations"}
    return {**request, "body": {**body, "metadata": metadata} if metadata else body}


@pytest.mark.parametrize("trace", load("correlate"))
def test_correlate(trace: dict[str, Any]) -> None:
    """Each event makes client-go's requests, or is skipped as in client-go."""
    now = 0
    correlator = EventCorrelator(options_of(trace["options"], lambda: now, catch_up=False))
    server = Server()
    for number, step in enumerate(trace["steps"]):
        now = parse_time(step["at"])
        server.expire(step.get("expire") or [])
        result = correlator.event_correlate(as_recorded(step))
        assert result.skip == step["skip"], number
        if result.event is None:
            continue
        requests, stored = server.write(result.event, result.patch)
        expected = [comparable(request) for request in step["requests"]]
        actual = [comparable(request) for request in requests]
        aggregate = "reportingComponent" not in expected[-1]["body"] and expected[-1]["verb"] == "create"
        if aggregate:  # difference: an aggregate has the reporting fields and annotations of its occurrence
            expected, actual = [[without_carried(r) for r in requests] for requests in (expected, actual)]
        assert actual == expected, number
        correlator.update_state(Event.from_dict(stored))


@pytest.mark.parametrize("trace", load("correlate"))
def test_catch_up_only_adds_patches(trace: dict[str, Any]) -> None:
    """With `catch_up` all requests of client-go are made, plus patches of its events, at most one per token."""
    now = 0
    options = options_of(trace["options"], lambda: now, catch_up=True)
    decider, plain = CoreDecider(options, None), EventCorrelator(options)
    pending: dict[str, tuple[float, Event]] = {}
    counts: dict[str, int] = {}
    added: dict[Hashable, list[float]] = defaultdict(list)
    first = parse_time(trace["steps"][0]["at"])
    for number, step in enumerate(trace["steps"]):
        now = parse_time(step["at"])
        event, expected = as_recorded(step), plain.event_correlate(as_recorded(step)).event
        for name, (due, state) in list(pending.items()):
            if due <= now / NANO:
                del pending[name]
                counts[name] = state.count
                added[options.spam_key_func(state)].append(due)
        write = decider.decide(event, now / NANO)
        if expected is not None:
            assert write is not None
            assert (write.there, write.due, write.catch_up) == (expected.count > 1, None, False), number
            assert (write.state.to_dict(), write.state.to_patch()) == (expected.to_dict(), expected.to_patch())
            counts[expected.name] = expected.count
            pending.pop(expected.name, None)
        elif write is not None:
            assert isinstance(write.state, Event)
            assert (write.catch_up, write.there) == (True, True)
            assert counts[write.state.name] < write.state.count
            assert write.due is not None
            assert write.due > now / NANO
            pending[write.state.name] = write.due, write.state
    for dues in added.values():
        assert len(dues) <= (now - first) / NANO * options.qps
        assert all(later - earlier >= 1 / options.qps - 1e-6 for earlier, later in pairwise(dues))
