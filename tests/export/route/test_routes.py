"""Routes: the sinks of a record, and the meaning of conditions."""

from __future__ import annotations

import copy
import re
from time import process_time
from typing import Any

import pytest

from kevents.export._model.types import Record, Stream
from kevents.export._route.routes import CONDITIONS, ConditionError, Route, Router

EVENT: dict[str, Any] = {
    "metadata": {"name": "web-0.1", "namespace": "shop", "uid": "e-1", "resourceVersion": "7"},
    "type": "Warning",
    "reason": "BackOff",
    "message": "Back-off restarting\nfailed container",
    "count": 5,
    "source": {"component": "kubelet", "host": "node-1"},
    "action": "Restarting",
    "involvedObject": {
        "kind": "Pod",
        "name": "web-0",
        "namespace": "shop",
        "apiVersion": "v1",
        "labels": {"app": "web", "tier": "front"},
        "annotations": {"team": "one"},
        "deleted": False,
    },
    "kevents": {
        "v": 1,
        "id": "e-1:7",
        "verb": "MODIFIED",
        "object": {"state": "live"},
        "topOwner": {"kind": "Deployment", "name": "web"},
        "services": ["web", "web-internal"],
    },
}
GAP: dict[str, Any] = {"kevents": {"v": 1, "id": "gap:1", "gap": {"from": "1", "to": "9"}}}


def record(body: dict[str, Any]) -> Record:
    """Return a record with this body."""
    return Record(Stream("c"), 7, body, 0.0)


def goes(route: Route, body: dict[str, Any] = EVENT) -> bool:
    """True if the route matches the body."""
    return bool(Router([route]).targets(record(body)))


def without(*path: str) -> dict[str, Any]:
    """Return the event without the value at a path."""
    body = copy.deepcopy(EVENT)
    part = body
    for key in path[:-1]:
        part = part[key]
    del part[path[-1]]
    return body


# -- conditions ------------------------------------------------------------------------------------------------------

VALUES = {
    "type": "Warning",
    "reason": "BackOff",
    "message": "Back-off restarting\nfailed container",
    "namespace": "shop",
    "kind": "Pod",
    "name": "web-0",
    "api_version": "v1",
    "component": "kubelet",
    "host": "node-1",
    "action": "Restarting",
    "verb": "MODIFIED",
    "state": "live",
    "owner_kind": "Deployment",
    "owner_name": "web",
    "service": "web-internal",
}


@pytest.mark.parametrize("about", VALUES)
def test_each_text(about: str) -> None:
    """Each text supports equality, lists, regex, glob and negation."""
    value = VALUES[about]
    for good in (value, [value, "other"], {value}, {"regex": re.escape(value)}, {"glob": value[:2] + "*"}):
        assert goes(Route(to="a", **{about: good})), good  # type: ignore[arg-type]
    for bad in ("other", ["other"], {"regex": f"^{value[:1]}$"}, {"glob": value[:1]}, lambda found: found == "other"):
        assert not goes(Route(to="a", **{about: bad})), bad  # type: ignore[arg-type]
    if about != "service":
        assert not goes(Route(to="a", **{about: {"equals": value, "not": True}}))  # type: ignore[arg-type]
        assert goes(Route(to="a", **{about: {"one_of": ["other"], "not": True}}))  # type: ignore[arg-type]


def test_every_condition_is_tried() -> None:
    """The tests cover every condition."""
    assert set(CONDITIONS) == {*VALUES, "labels", "annotations", "deleted", "count", "enriched"}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"app": "web"}, True),
        ({"app": "web", "tier": ["front", "back"]}, True),
        ({"app": "web", "tier": "back"}, False),
        ({"app": {"glob": "w*"}}, True),
        ({"none": "web"}, False),
        ({"none": {"glob": "*"}}, False),
        ({"none": {"equals": "web", "not": True}}, True),
        ({"app": {"exists": True}}, True),
        ({"app": {"exists": False}}, False),
        ({"none": {"exists": False}}, True),
        ({"app": lambda value: value is not None}, True),
    ],
)
def test_labels(condition: dict[str, Any], expected: bool) -> None:  # noqa: FBT001
    """All keys must match. A missing key matches only a negation."""
    assert goes(Route(to="a", labels=condition)) == expected
    as_annotations = copy.deepcopy(EVENT)
    as_annotations["involvedObject"]["annotations"] = as_annotations["involvedObject"]["labels"]
    assert goes(Route(to="a", annotations=condition), as_annotations) == expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [(5, True), (4, False), ({"min": 5}, True), ({"min": 6}, False), ({"min": 2, "max": 4}, False), ([4, 5], True)],
)
def test_count(condition: object, expected: bool) -> None:  # noqa: FBT001
    """A count is compared as a number. The default is 1."""
    assert goes(Route(to="a", count=condition)) == expected  # type: ignore[arg-type]
    assert goes(Route(to="a", count=1), without("count"))


@pytest.mark.parametrize("count", ["5", True, None, 5.5])
def test_a_count_that_is_none(count: object) -> None:
    """A count that is no whole number matches no range."""
    assert not goes(Route(to="a", count={"min": 2}), {**EVENT, "count": count})
    assert goes(Route(to="a", count=9), {**without("count"), "series": {"count": 9}})


@pytest.mark.parametrize("series", [{"count": 5}, {"count": 5, "lastObservedTime": "x"}])
def test_a_series_counts_first(series: dict[str, Any]) -> None:
    """Fault 34: the count of a series takes precedence over the event's own, as in `countDelta`."""
    assert goes(Route(to="a", count={"min": 3}), {**EVENT, "count": 1, "series": series})


@pytest.mark.parametrize("series", [None, {}, {"count": None}, {"count": 0}, 7])
def test_a_series_without_a_count(series: object) -> None:
    """Without a count of the series, the event's own is used."""
    assert goes(Route(to="a", count=4), {**EVENT, "count": 4, "series": series})


def test_a_regex_searches() -> None:
    """A regex may match anywhere in the value, and its dot matches line breaks."""
    for good in ("failed", "restart.*failed", "^Back-off", "container$", r"(?i)FAILED"):
        assert goes(Route(to="a", message={"regex": good})), good
    for bad in ("^failed", "Back-off$", "^$"):
        assert not goes(Route(to="a", message={"regex": bad})), bad


def test_a_regex_in_linear_time() -> None:
    """Fault 29: a regex takes linear time for every pattern and message."""
    body = {**EVENT, "message": "error " * 40_000}
    began = process_time()
    for regex in (".*error.*timeout.*", "(?:a+)+b", "(e|er|r)*timeout$"):
        assert not goes(Route(to="a", message={"regex": regex}), body)
    assert process_time() - began < 2


def test_a_message_that_is_no_unicode() -> None:
    """A lone surrogate in a message matches as a question mark."""
    assert goes(Route(to="a", message={"regex": "^a.b$"}), {**EVENT, "message": "a\ud800b"})


def test_enriched() -> None:
    """Records whose metadata could not be read in time can be routed."""
    late = copy.deepcopy(EVENT)
    late["kevents"]["object"]["enriched"] = False
    assert [goes(Route(to="a", enriched=False), body) for body in (late, EVENT, GAP)] == [True, False, True]
    assert [goes(Route(to="a", enriched=True), body) for body in (late, EVENT)] == [False, True]
    assert not goes(Route(to="a", enriched=False), {**EVENT, "kevents": {}})


def test_missing_objects() -> None:
    """A missing text is matched as an empty one."""
    body = without("source")
    assert goes(Route(to="a", component=""), body)
    assert goes(Route(to="a", component={"exists": False}), body)
    assert not goes(Route(to="a", component={"glob": "k*"}), body)
    assert goes(Route(to="a", component="controller"), {**body, "reportingComponent": "controller"})


def test_nulls() -> None:
    """Null values of the API are treated as missing."""
    body = {"involvedObject": None, "source": None, "metadata": None, "type": None, "message": None, "kevents": {}}
    assert not goes(Route(to="a", kind="Pod", labels={"a": "b"}), body)
    assert goes(Route(to="a", type="", kind={"equals": "Pod", "not": True}), body)


def test_functions() -> None:
    """In code, a condition can be a function of the value or of the whole body."""
    assert goes(Route(to="a", count=lambda count: count % 5 == 0))
    assert goes(Route(to="a", when=lambda body: body["kevents"]["verb"] == "MODIFIED"))
    assert not goes(Route(to="a", when=lambda body: False))


def test_a_function_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """A function that raises counts as a match and is logged: a duplicate is better than a loss."""
    assert goes(Route(to="a", reason=lambda reason: reason.no_such_thing))
    assert "a route's test of reason raised AttributeError" in caplog.text


# -- the order of routes ---------------------------------------------------------------------------------------------


def test_targets() -> None:
    """A record goes to the sinks of all matching routes, each once, in order."""
    routes = [Route(to=["b", "a", "b"], type="Warning"), Route(to="c", kind="Node"), Route(to=("a", "d"), all=True)]
    assert Router(routes).targets(record(EVENT)) == ("b", "a", "d")
    assert Router(routes).sinks == ("b", "a", "c", "d")


def test_stop() -> None:
    """A matching route with `stop` ends the evaluation for that record only."""
    stop = Route(to="pager", kind="Pod", stop=True)
    everything = Route(to="archive", all=True)
    assert Router([stop, everything]).targets(record(EVENT)) == ("pager",)
    assert Router([stop, everything]).targets(record({**EVENT, "involvedObject": {"kind": "Node"}})) == ("archive",)


def test_dropped() -> None:
    """A matching route without a sink drops the record."""
    assert Router([Route(stop=True, kind="Pod"), Route(to="a", all=True)]).targets(record(EVENT)) == ()


def test_gap() -> None:
    """A gap record goes to every sink, because each may miss events."""
    routes = [Route(to="pager", type="Warning", stop=True), Route(to="archive", kind="Node")]
    assert Router(routes).targets(record(GAP)) == ("pager", "archive")


def test_explain() -> None:
    """The explanation has the result and reasons of each route, and marks routes that were not evaluated."""
    routes = [
        Route(to="a", kind=["Node", "Job"], type="Warning"),
        Route(to="b", kind="Pod", labels={"app": "web"}, stop=True),
        Route(to="c", all=True),
    ]
    no, yes, not_asked = Router(routes).explain(EVENT)
    assert (no.matched, no.reasons) == (False, ('kind is one of "Node" or "Job", not "Pod"',))
    assert (yes.matched, yes.reasons) == (True, ('kind is "Pod"', 'labels.app is "web"'))
    assert (not_asked.matched, not_asked.reasons) == (None, ())
    [everything] = Router(routes[2:]).explain(EVENT)
    assert (everything.matched, everything.reasons) == (True, ("all = true",))


def test_explain_missing_resources() -> None:
    """The explanation reports missing values and shortens long ones."""
    [answer] = Router([Route(to="a", labels={"x": "y"}, message="m", owner_name="o")]).explain(
        {**without("kevents"), "message": "m" * 500}
    )
    assert 'labels.x is "y": it does not exist' in answer.reasons
    assert 'owner_name is "o": it does not exist' in answer.reasons
    assert max(map(len, answer.reasons)) < 120


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "path", "why"),
    [
        ({}, (), "has no condition: name one, or say all = true"),
        ({"all": True, "kind": "Pod"}, ("all",), "has conditions, and says all = true"),
        ({"to": (), "kind": "Pod"}, ("to",), "names no sink"),
        ({"to": "", "kind": "Pod"}, ("to",), "names no sink"),
        ({"kind": 5}, ("kind",), "must be a text, not 5"),
        ({"kind": ["Pod", 5]}, ("kind", 1), "must be a text, not 5"),
        ({"kind": []}, ("kind",), "an empty list matches nothing"),
        ({"kind": "pod"}, ("kind",), '"pod" never matches; did you mean "Pod"?'),
        ({"kind": ["Pod", "node"]}, ("kind", 1), 'did you mean "Node"?'),
        ({"type": {"equals": "warning"}}, ("type", "equals"), 'did you mean "Warning"?'),
        ({"kind": {"regex": "("}}, ("kind", "regex"), '"(" is no regular expression: '),
        (
            {"kind": {"regex": "(?=Pod)"}},
            ("kind", "regex"),
            "look-arounds, atomic groups and back-references",
        ),
        ({"kind": {"regex": r"(a)\1"}}, ("kind", "regex"), "back-references do not exist"),
        ({"namespace": "*"}, ("namespace",), 'never matches: "*" is no name of a namespace: leave it out'),
        ({"namespace": ""}, ("namespace",), "leave it out for all namespaces"),
        ({"namespace": "Shop"}, ("namespace",), 'did you mean "shop"?'),
        ({"namespace": ["shop", "shop.eu"]}, ("namespace", 1), "lower-case letters, digits"),
        ({"namespace": {"equals": "50%", "not": True}}, ("namespace", "equals"), "lower-case letters, digits"),
        ({"namespace": {"one_of": ["a", ".."], "not": True}}, ("namespace", "one_of", 1), '".." is no name'),
        ({"namespace": "shop,jobs"}, ("namespace",), 'several are a list: ["shop", "jobs"]'),
        ({"namespace": "x" * 64}, ("namespace",), "at most 63"),
        ({"kind": {"one_of": ["pod"], "not": True}}, ("kind", "one_of", 0), 'did you mean "Pod"?'),
        ({"kind": {"regx": "a"}}, ("kind", "regx"), 'unknown key "regx" of a condition; did you mean "regex"?'),
        ({"kind": {"min": 1}}, ("kind", "min"), 'unknown key "min" of a condition; '),
        ({"kind": {"regex": "a", "glob": "b"}}, ("kind",), 'holds exactly one of "equals", '),
        ({"kind": {"not": True}}, ("kind",), "not none"),
        ({"kind": {"equals": "a", "not": "yes"}}, ("kind", "not"), 'must be true or false, not "yes"'),
        ({"kind": {"one_of": "a"}}, ("kind", "one_of"), 'must be a list, not "a"'),
        ({"count": True}, ("count",), "must be a whole number, not true"),
        ({"count": "3"}, ("count",), 'must be a whole number, not "3"'),
        ({"count": {"min": 3, "max": 2}}, ("count",), "min 3 is above max 2"),
        ({"deleted": "true"}, ("deleted",), 'must be true or false, not "true"'),
        ({"labels": "app=web"}, ("labels",), "must be a table of at least one key"),
        ({"labels": {}}, ("labels",), "must be a table of at least one key"),
        ({"labels": {"app": 1}}, ("labels", "app"), "must be a text, not 1"),
        ({"service": {"equals": "web", "not": True}}, ("service",), "a pod has several services"),
    ],
)
def test_refused(conditions: dict[str, Any], path: tuple[str | int, ...], why: str) -> None:
    """A condition that has no meaning or can never match is refused with its path, the value and the fix."""
    with pytest.raises(ConditionError) as error:
        Route(**{"to": "a", **conditions})
    assert error.value.path == path
    assert why in error.value.why
    assert isinstance(error.value, ValueError)


def test_shown() -> None:
    """The repr of routes and routers shows their content."""
    assert repr(Route(to="a", kind="Pod")) == "Route(to='a', kind='Pod')"
    assert repr(Router([Route(to="a", all=True), Route(to="b", all=True)])) == 'Router(2 routes to "a" or "b")'
