"""The filters of `kevents tail` and `kevents read`, with kubectl's syntax."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from kevents.export._operate.filters import OptionError, check_namespaces, filter_of, spelling_hint
from tests.export.route.test_routes import EVENT, GAP

NOTHING: dict[str, Any] = dict.fromkeys(("namespace", "kind", "name", "reason", "since", "about", "types", "selector"))


def shows(body: dict[str, Any], **options: Any) -> bool:
    """True if the filters show a record."""
    return bool(filter_of(argparse.Namespace(**{**NOTHING, "warning": False, **options})).targets_of(body))


def with_labels(**labels: str) -> dict[str, Any]:
    """Return an event with labels."""
    return {**EVENT, "metadata": {**EVENT["metadata"], "labels": labels}}


def about(kind: str, name: str, api_version: str = "v1") -> dict[str, Any]:
    """Return an event about an object."""
    involved = {"kind": kind, "name": name, "apiVersion": api_version, "namespace": "shop"}
    return {**EVENT, "involvedObject": involved}


@pytest.mark.parametrize("eventtype", ["Warning", "Error", "Critical", ""])
def test_warning(eventtype: str) -> None:
    """Fault 35: --warning shows every type except Normal. kopf writes Error."""
    assert shows({**EVENT, "type": eventtype}, warning=True)
    assert not shows({**EVENT, "type": "Normal"}, warning=True)


@pytest.mark.parametrize("kind", ["Pod", "pod", "PODS", "po"])
def test_kinds(kind: str) -> None:
    """A kind is accepted in any case, in the plural, and by its short name."""
    assert shows(about("Pod", "web-0"), kind=[kind])
    assert not shows(about("PodGroup", "web-0"), kind=[kind])


@pytest.mark.parametrize(
    ("kind", "word"), [("Ingress", "ingresses"), ("NetworkPolicy", "networkpolicies"), ("Backup", "backups")]
)
def test_plurals(kind: str, word: str) -> None:
    """Plurals are recognised without a request, including those of custom resources."""
    assert shows(about(kind, "x"), kind=["Node", word])


def test_object() -> None:
    """--for shows the events of one object and accepts kubectl's syntax for groups."""
    deployment = about("Deployment", "web", "apps/v1")
    for text in ("deployment/web", "deploy/web", "Deployments.apps/web", "deployments.v1.apps/web"):
        assert shows(deployment, about=text), text
    for text in ("deployment/web-0", "pod/web", "deployments.example.com/web"):
        assert not shows(deployment, about=text), text


def test_types() -> None:
    """--types shows the listed types in any case."""
    for types, expected in (("Warning,Error", True), ("warning", True), (" error , normal ", False)):
        assert shows({**EVENT, "type": "Warning"}, types=types) == expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("app=web", True),
        ("app == web", True),
        ("app=db", False),
        ("app!=db", True),
        ("tier!=db", True),
        ("app", True),
        ("!app", False),
        ("!tier", True),
        ("app in (db, web)", True),
        ("app notin (db, web)", False),
        ("tier notin (db)", True),
        ("app=web,env=", True),
        ("app=web,tier in (a,b),env=prod", False),
    ],
)
def test_selector(selector: str, *, expected: bool) -> None:
    """-l selects by the labels of the event, as kubectl does."""
    assert shows(with_labels(app="web", env=""), selector=selector) == expected


def test_gaps() -> None:
    """A gap is shown whatever the filters are."""
    assert shows(GAP, warning=True, kind=["Pod"], types="Error", selector="app=web", about="pod/x")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"since": "5"}, "--since must be a duration such as"),
        ({"about": "pod"}, "--for must be written TYPE/NAME"),
        ({"about": "/web"}, "--for must be written TYPE/NAME"),
        ({"types": ","}, "--types must list types"),
        ({"selector": "a b"}, '--selector: "a b" is no requirement'),
        ({"selector": "!a=b"}, '--selector: "!a=b" is no requirement'),
        ({"selector": "a,"}, '--selector: "" is no requirement'),
    ],
)
def test_wrong(options: dict[str, Any], expected: str) -> None:
    """The error of an invalid option names it and the fix."""
    with pytest.raises(OptionError) as error:
        shows(EVENT, **options)
    assert str(error.value).startswith(expected)


def test_namespaces() -> None:
    """An impossible namespace is an error, because it would show nothing."""
    check_namespaces(["shop", "default"])
    for name, fix in (("Shop", 'did you mean "shop"?'), ("a,b", "-n a -n b"), ("50%", "lower-case letters")):
        with pytest.raises(OptionError, match=fix):
            check_namespaces([name])


def test_hint() -> None:
    """A misspelt kind or type gets a hint, a custom one does not."""
    assert spelling_hint(["pods", "podd"], None) == 'no known kind is named "podd"; did you mean "pod"?'
    assert spelling_hint([], "Normal, warnin") == 'no known type is named "warnin"; did you mean "warning"?'
    assert spelling_hint(["Backup", "backups.example.com", "job"], "Normal,Error,Custom") == ""
