"""A JSON body with places for what a record holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export._sinks.template import Template
from tests.export.batches import body

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


def filled(template: Any, **fields: Any) -> Any:
    """What becomes of a template, and of a record with these fields."""
    return json.loads(Template(json.dumps(template)).fill({**body(7), **fields}))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{message}", "message 7"),
        ("{type}: {reason} ({involvedObject.kind} {involvedObject.name})", "Warning: BackOff (Pod web-0)"),
        ({"t": "{message}", "n": 3, "d": [True, None]}, {"t": "message 7", "n": 3, "d": [True, None]}),
        ("{count}", 3),
        ("{count} times", "3 times"),
        ("{eventTime}", None),
        ("at {eventTime}.", "at ."),
        ("{none.at.all}", None),
        ("[{none.at.all}]", "[]"),
        ("{ message }", "message 7"),
        ("{{message}} {{}}", "{message} {}"),
        ("{{{message}}}", "{message 7}"),
        ("{metadata.labels[app.kubernetes.io/name]}", "web"),
        ("{metadata[labels].x}", "y"),
        ("{owners.1.name}", "b"),
        ("{owners.7.name}", None),
        ("{message.more}", None),
        ("{source}", {"component": "kubelet", "host": "node-1"}),
        ("from {source}", 'from {"component":"kubelet","host":"node-1"}'),
        ("", ""),
        (7, 7),
    ],
)
def test_filled(template: Any, expected: Any) -> None:
    """Places are filled with what the record holds there; a text that is one place becomes the value itself."""
    fields = {"owners": [{"name": "a"}, {"name": "b"}]}
    metadata = {**body(7)["metadata"], "labels": {"app.kubernetes.io/name": "web", "x": "y"}}
    assert filled(template, metadata=metadata, **fields) == expected


def test_the_whole_record() -> None:
    """A dot is the whole record."""
    assert filled({"event": "{.}"}) == {"event": body(7)}


@given(TEXT)
def test_nothing_breaks_out(text: str) -> None:
    """Whatever a message holds, it stays in its text: quotes, braces, line breaks."""
    expected = {"text": f"said: {text}"}
    assert filled({"text": "said: {message}"}, message=text) == expected


@given(JSON)
def test_without_places(value: Any) -> None:
    """A template without places is what it says; its braces are written twice."""
    assert json.loads(Template(json.dumps(doubled(value))).fill({})) == value


def doubled(value: Any) -> Any:
    """A value whose texts have their braces twice; keys are as they are."""
    if isinstance(value, str):
        return value.replace("{", "{{").replace("}", "}}")
    if isinstance(value, list):
        return [doubled(inner) for inner in value]
    return {key: doubled(inner) for key, inner in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{message}", "must be JSON"),
        ("", "must be JSON"),
        ("[" * 100_000, "must be JSON"),
        ('"{"', "is no place"),
        ('"}"', "is no place"),
        ('"{}"', "is no place"),
        ('"{a..b}"', "is no place"),
        ('"{.a}"', "is no place"),
        ('"{a[]}"', "is no place"),
        ('"{a[b}"', "is no place"),
        ('{"a": ["x {a.} y"]}', "is no place"),
    ],
)
def test_wrong_templates(text: str, why: str) -> None:
    """A template that means nothing is refused when it is compiled, with the place that is wrong."""
    with pytest.raises(ValueError, match=why):
        Template(text)
