"""The command `kevents check`: valid and invalid configurations, and the destinations of an event."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kevents._cli import main as _cli
from kevents.export._config.file import ConfigError, load
from kevents.export._operate.build import build
from tests.export.route.test_routes import EVENT, GAP

CONFIG = """\
checkpoints = "state/"
[sinks.archive]
type = "file"
path = "events/"
[sinks.pager]
type = "webhook"
url = { env = "HOOK" }
[[routes]]
id = "noise"
kind = "Lease"
stop = true
[[routes]]
to = "pager"
type = "Warning"
reason = { glob = "Back*" }
[[routes]]
to = "archive"
kind = ["Pod", "Node"]
"""
Check = Callable[..., tuple[int, str, str]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """A function that runs `kevents check` on a configuration and an event, and returns its status and output."""
    monkeypatch.chdir(tmp_path)

    def run(config: str = CONFIG, event: Any = None, *more: str) -> tuple[int, str, str]:
        Path("cfg.toml").write_text(config, encoding="utf-8")
        arguments = ["check", "-c", "cfg.toml", *more]
        if event is not None:
            Path("e.json").write_text(event if isinstance(event, str) else json.dumps(event), encoding="utf-8")
            arguments += ["--event", "e.json"]
        status = _cli.main(arguments)
        written = capsys.readouterr()
        return status, written.out, written.err

    return run


def test_good(check: Check) -> None:
    """A valid configuration is summarised. Its secrets may be missing."""
    assert check() == (0, "cfg.toml: good; 3 routes, sinks: archive (file), pager (webhook)\n", "")


def test_bad(check: Check) -> None:
    """An invalid configuration exits with status 2 and one line for each error."""
    status, out, err = check(CONFIG.replace("glob", "globb").replace('"webhook"', '"x"'))
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        (
            'cfg.toml:6: sinks.pager.type: must be "stdout", "file", "object-store", "webhook", "otlp", "loki", '
            '"elasticsearch", "splunk", "slack" or "teams", not "x"'
        ),
        'cfg.toml:15: routes[1].reason.globb: unknown key "globb" of a condition; did you mean "glob"?',
        "kevents: 2 errors",
    ]


STORE, HOOK = 'type = "object-store"\nurl = ', 'type = "webhook"\nurl = '
SINKS = [
    (f'{STORE}"s3://"', "'s3://' names no bucket: s3://bucket/prefix"),
    (f'{STORE}"s3://b/../x"', "'s3://b/../x': a prefix consists of names, without '.', '..' or empty parts"),
    (
        f'{STORE}"s3://b/x"\noptions = {{ regionn = "eu" }}',
        "options: Configuration key: 'regionn' is not valid for store 'S3'.",
    ),
    (
        f'{STORE}"gs://b/x"\noptions = {{ allow_http = true }}',
        "options: allow_http is an option of the connection, which kevents sets itself: remove it",
    ),
    (
        f'{HOOK}"https://h/x"\nca_file = "/nope.pem"',
        "ca_file '/nope.pem' cannot be read: [Errno 2] No such file or directory",
    ),
    (f'{HOOK}"https://"', "the URL must be https://host/..., not without a host"),
    (
        f'{HOOK}"https://h:99999/x"',
        "the URL has an invalid host or port: https://host/... or https://host:port/...",
    ),
    (
        f'{HOOK}"https://h/x"\nheaders = {{ "b\xe4d" = "x" }}',
        "headers: 'b\xe4d' is not the name of a header: use ASCII letters, digits and -",
    ),
    (f'{HOOK}"https://h/x"\nheaders = {{ x-a = "b\\nc" }}', "the header x-a is not a text of one line"),
]


@pytest.mark.parametrize(("sink", "why"), SINKS)
def test_a_sink_that_cannot_be_made(check: Check, sink: str, why: str) -> None:
    """The check reports errors of building the sinks, without connecting."""
    config = f'checkpoints = "s"\n[sinks.o]\n{sink}\n[[routes]]\nto = "o"\nall = true\n'
    assert check(config) == (2, "", f"cfg.toml: sinks.o: {why}\nkevents: 1 error\n")
    with pytest.raises(ConfigError, match=f"^{re.escape(f'cfg.toml: sinks.o: {why}')}$"):
        build(load("cfg.toml"))


def test_sinks_without_their_secrets(check: Check) -> None:
    """A check needs no secrets."""
    missing = '{ env = "KEVENTS_NOT_SET" }'
    store = f'{STORE}{missing}\n[sinks.p]\n{STORE}"az://b/x"\noptions = {{ account_key = {missing} }}'
    config = f'[sinks.o]\n{store}\n[[routes]]\nto = ["o", "p"]\nall = true\n'
    assert check(config) == (0, "cfg.toml: good; 1 route, sinks: o (object-store), p (object-store)\n", "")


def test_event(check: Check) -> None:
    """For an event, the output has the matching routes, the reasons and the destinations."""
    status, out, err = check(CONFIG, EVENT)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "Warning BackOff about Pod/web-0 in shop",
        '  route 1 (noise) does not match: kind is "Lease", not "Pod"',
        '  route 2 matches and goes to pager: type is "Warning"; reason is like "Back*"',
        '  route 3 matches and goes to archive: kind is one of "Pod" or "Node"',
        "  -> pager, archive",
    ]


def test_nowhere(check: Check) -> None:
    """An event without a destination exits with status 1. Routes after a stop are not evaluated."""
    lease = {"involvedObject": {"kind": "Lease", "name": "l"}, "type": "Normal", "reason": "LeaderElection"}
    status, out, _ = check(CONFIG, lease)
    assert status == 1
    assert out.splitlines() == [
        "Normal LeaderElection about Lease/l",
        '  route 1 (noise) matches and goes to nowhere, and stops: kind is "Lease"',
        "  route 2 is not evaluated, because an earlier one stops",
        "  route 3 is not evaluated, because an earlier one stops",
        "  -> nowhere",
    ]


def test_a_gap(check: Check) -> None:
    """A gap goes to every sink."""
    assert check(CONFIG, GAP) == (0, "a gap\n  a gap goes to every sink that a route names\n  -> pager, archive\n", "")


def test_a_list(check: Check) -> None:
    """A kubectl list and JSON lines of an export contain several events."""
    for events in ({"kind": "List", "items": [EVENT, EVENT]}, f"{json.dumps(EVENT)}\n\n{json.dumps(EVENT)}\n"):
        status, out, _ = check(CONFIG, events)
        assert (status, out.count("  -> pager, archive\n")) == (0, 2)


def test_an_event_of_the_new_api(check: Check) -> None:
    """An event of events.k8s.io/v1 is accepted with its own field names."""
    event = {"regarding": EVENT["involvedObject"], "note": "n", "type": "Warning", "reason": "BackOff"}
    status, out, _ = check(CONFIG, event)
    assert (status, out.endswith("  -> pager, archive\n")) == (0, True)


def test_standard_input(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event can be piped in from kubectl."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(EVENT).encode())))
    assert check(CONFIG, None, "--event", "-")[0] == 0


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ("{", "e.json:1: is not valid JSON (Expecting property name"),
        ("", "e.json: contains no event: give what 'kubectl get event NAME -o json' prints"),
        ("5", "e.json: not an event, because it has no involvedObject: give what"),
        ('{"kind": "Pod"}', "e.json: not an event, because it has no involvedObject: give what"),
        ('{"items": []}', "e.json: contains no event"),
        ('{"items": null}', "e.json: contains no event"),
        ('{"items": 5}', "e.json: contains no event"),
    ],
)
def test_no_event(check: Check, event: str, why: str) -> None:
    """The error of a file without an event has the fix."""
    status, out, err = check(CONFIG, event)
    assert (status, out) == (2, "")
    assert err.startswith(f"kevents: {why}")
    assert err.count("\n") == 1


def test_no_text(check: Check) -> None:
    """The error of a file that is not UTF-8 has the byte offset."""
    Path("e.bin").write_bytes(b'{"kind": "\xff"}')
    status, _, err = check(CONFIG, None, "--event", "e.bin")
    assert (status, err) == (2, "kevents: e.bin: is not UTF-8 text (byte 10)\n")


def test_no_file(check: Check) -> None:
    """A missing file is named in the error."""
    status, _, err = check(CONFIG, None, "--event", "none.json")
    assert (status, err) == (2, "kevents: none.json: cannot be read (No such file or directory)\n")


def test_escapes(check: Check) -> None:
    """Pitfall 71: control characters of events and configurations are escaped."""
    event = {**EVENT, "reason": "Back\x1b[31m\r\n", "type": "War\nning"}
    _, out, _ = check(CONFIG, event)
    assert "\x1b" not in out
    assert "War\\nning Back\\x1b[31m\\r\\n about" in out.splitlines()[0]
    _, _, err = check(CONFIG + '"x\\u001b[31m" = 1\n')
    assert "\x1b" not in err


def test_a_bug(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is one line. With --debug, it has a traceback."""

    def broken(*arguments: object) -> int:
        raise RuntimeError("never\nforeseen")

    monkeypatch.setattr("kevents.export._operate.commands.check", broken)
    expected = "kevents: RuntimeError: never\\nforeseen; --debug shows the traceback\n"
    assert check() == (1, "", expected)
    with pytest.raises(RuntimeError):
        check(CONFIG, None, "--debug")


def test_without_the_packages(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error has the command that installs it."""
    for name in [name for name in sys.modules if name.startswith("kevents.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "msgspec", None)
    assert _cli.main(["check", "-c", "cfg.toml"]) == 2
    expected = (
        "kevents: 'kevents check' needs packages that are not installed (msgspec): "
        "pip install 'kevents[export]', or in a checkout pip install '.[export]'\n"
    )
    assert capsys.readouterr().err == expected
