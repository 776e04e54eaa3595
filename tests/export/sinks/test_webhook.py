"""The webhook sink: requests, answers, and secrets that stay secret."""

from __future__ import annotations

import gc
import gzip
import json
import logging
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export import Batch, Reject, Retry, WebhookSink
from kevents.export._sinks.http import MOST_REFUSALS
from kevents.export._sinks.template import Template
from kevents.testing._apiserver.server import self_signed
from tests.export.batches import STREAM, batch, body, ids, ids_of, position, record
from tests.export.receiver import Answer, Scripted
from tests.export.sink_contract import Place, SinkContract

ROOT = Path(__file__).parents[3]
TOKEN = "hush-hush-token-of-someone"
BODY = '{"text": "{type} {reason}: {message}", "id": "{kevents.id}", "event": "{.}"}'


@pytest.fixture
def server() -> Iterator[Scripted]:
    """A server."""
    with closing(Scripted()) as found:
        yield found


@pytest.fixture
def sink(server: Scripted) -> Iterator[WebhookSink]:
    """A sink for it, whose URL and header are secrets."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with closing(WebhookSink(f"{server.url}/hook/{TOKEN}?key={TOKEN}", headers=headers, timeout=10)) as found:
        yield found


def sent(server: Scripted) -> list[dict[str, Any]]:
    """The records that were sent, refused ones too."""
    return [json.loads(line) for asked in server.requests for line in asked.body.split(b"\n")[:-1]]


def lines(asked: Any) -> list[str]:
    """The ids of the records in a request."""
    return ids(json.loads(line) for line in asked.body.split(b"\n")[:-1])


class TestWebhookSink(SinkContract):
    """The contract, with JSON lines."""

    @pytest.fixture
    def place(self, server: Scripted) -> Place:
        """A server."""
        return Place(lambda: WebhookSink(server.url), lambda: sent(server))


class TestTemplate(SinkContract):
    """The contract, with a body of one's own."""

    @pytest.fixture
    def place(self, server: Scripted) -> Place:
        """A server."""
        return Place(
            lambda: WebhookSink(server.url, body=BODY),
            lambda: [json.loads(asked.body)["event"] for asked in server.requests],
        )


# -- requests ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_a_request(server: Scripted, sink: WebhookSink) -> None:
    """Without a body of one's own a batch is one request of JSON lines, over one connection."""
    sink.write(batch([1, 2, 3]))
    sink.write(batch([], upto=4))
    sink.write(batch([5]))
    first, second = server.requests
    assert (lines(first), lines(second)) == (ids_of([1, 2, 3]), ids_of([5]))
    assert (first.method, first.path) == ("POST", f"/hook/{TOKEN}?key={TOKEN}")
    assert (
        first.headers["content-type"],
        first.headers["authorization"],
    ) == ("application/x-ndjson", f"Bearer {TOKEN}")
    assert first.headers["user-agent"].startswith("kevents/")


def test_a_body_of_ones_own(server: Scripted) -> None:
    """With a body of one's own each record is a request, in order."""
    headers = {"Content-Type": "application/cloudevents+json"}
    with closing(WebhookSink(server.url, method="PUT", body=BODY, headers=headers)) as sink:
        sink.write(batch([1, 2]))
    assert [json.loads(asked.body)["id"] for asked in server.requests] == ["uid-1:1", "uid-2:2"]
    assert json.loads(server.requests[0].body)["text"] == "Warning BackOff: message 1"
    assert {(a.method, a.headers["content-type"]) for a in server.requests} == {("PUT", "application/cloudevents+json")}


def test_headers_are_asked_for(server: Scripted) -> None:
    """A header, and the URL, may be functions: a renewed secret is in the next request."""
    tokens = iter(["one", "two"])
    with closing(WebhookSink(lambda: server.url + "/x", headers={"X-Token": lambda: f" {next(tokens)}\n"})) as sink:
        sink.write(batch([1]))
        sink.write(batch([2]))
    assert [(asked.path, asked.headers["x-token"]) for asked in server.requests] == [("/x", "one"), ("/x", "two")]


def untold() -> str:
    """Fail with a secret in the error."""
    raise OSError(f"no such thing: {TOKEN}")


@pytest.mark.parametrize("broken", [lambda: TOKEN + "\nX: y", lambda: 1 // 0, lambda: 7, untold])
def test_a_header_that_cannot_be_had(server: Scripted, broken: Any) -> None:
    """Pitfall 72: a header that is not available or no line is reported without its value, and requested again."""
    with closing(WebhookSink(server.url, headers={"X-Token": broken})) as sink:
        with pytest.raises(Retry, match=r"the header X-Token (is not available|is not a text of one line)") as caught:
            sink.write(batch([1]))
        assert TOKEN not in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"url": "ftp://x/y"}, "must be https://host"),
        ({"url": "hooks.example.com"}, "must be https://host"),
        ({"url": "https:///x"}, "without a host"),
        ({"url": f"https://user:{TOKEN}@x/y"}, "credentials do not belong in the URL"),
        ({"method": "GET"}, "method must be"),
        ({"timeout": 0}, "timeout must be"),
        ({"ca_file": "/no/such/file"}, "ca_file '/no/such/file' cannot be read"),
        ({"body": "{"}, "must be JSON"),
    ],
)
def test_wrong_values(values: dict[str, Any], why: str) -> None:
    """A value that is none is refused at once, and named; secrets are not repeated."""
    with pytest.raises(ValueError, match=why) as caught:
        WebhookSink(**{"url": "https://x", **values})
    assert TOKEN not in str(caught.value)


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_success(server: Scripted, sink: WebhookSink, status: int) -> None:
    """Any 2xx is a success, with any body."""
    server.answers = [Answer(status, b"" if status == 204 else b"\xff{")]
    sink.write(batch([1]))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 407, 408, 410, 415, 425, 429, 500, 502, 503, 504, 599])
def test_later(server: Scripted, sink: WebhookSink, status: int) -> None:
    """Answers about the endpoint, or that ask to wait, are retried: no record is rejected for them."""
    server.answers = [Answer(status, b"because so")]
    with pytest.raises(Retry, match=f"{status} because so"):
        sink.write(batch([1, 2]))
    sink.write(batch([1, 2]))
    assert [lines(asked) for asked in server.requests] == [ids_of([1, 2])] * 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("header", "expected"), [("3", 3.0), ("-1", None), ("9999", 60.0), ("soon", None), ("", None)])
def test_retry_after(server: Scripted, sink: WebhookSink, status: int, header: str, expected: float | None) -> None:
    """Pitfall 39: a sane Retry-After is handed on in seconds, capped; absurd ones are ignored."""
    server.answers = [Answer(status, headers={"Retry-After": header})]
    with pytest.raises(Retry) as caught:
        sink.write(batch([1]))
    assert caught.value.after == expected


def test_retry_after_a_date(server: Scripted, sink: WebhookSink) -> None:
    """Pitfall 39: Retry-After may be a date."""
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    server.answers = [Answer(429, headers={"Retry-After": date})]
    with pytest.raises(Retry) as caught:
        sink.write(batch([1]))
    assert caught.value.after is not None
    assert 20 < caught.value.after <= 30


class Picky(Scripted):
    """Refuses requests with certain records."""

    def __init__(self, *refused: int, status: int = 422) -> None:
        """Keep which."""
        self.refused = set(ids_of(refused))
        self.status = status
        super().__init__()

    def _handler(self) -> Any:
        base: Any = super()._handler()
        outer = self

        class Handler(base):  # type: ignore[misc]
            def answer(self) -> None:
                length = int(self.headers["content-length"])
                found = self.rfile.peek(length)[:length]
                bad = any(name.encode() in found for name in outer.refused)
                outer.answers.append(Answer(outer.status, b"I do not like one") if bad else Answer())
                base.answer(self)

            do_POST = answer  # noqa: N815 - the name that the server looks for

        return Handler


@pytest.mark.parametrize("status", [400, 409, 413, 414, 422, 418])
@pytest.mark.parametrize("refused", [[3], [1], [8], [3, 4], [1, 8], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_refused(status: int, refused: list[int]) -> None:
    """A refusal is narrowed down to the records that are refused; the others are taken, once, in order."""
    with closing(Picky(*refused, status=status)) as server, closing(WebhookSink(server.url)) as sink:
        with pytest.raises(Reject, match=f"{status} I do not like one") as caught:
            sink.write(batch(range(1, 9)))
        assert [found.id for found in caught.value.records] == ids_of(refused)
        taken = [lines(asked) for asked in server.requests if not set(lines(asked)) & server.refused]
        assert [name for part in taken for name in part] == [
            rv for rv in ids_of(range(1, 9)) if rv not in server.refused
        ]
        sink.write(batch([9]))
        assert lines(server.requests[-1]) == ids_of([9])


def test_everything_is_refused() -> None:
    """A server that refuses everything costs a bounded number of requests; all of it is rejected."""
    with closing(Scripted()) as server, closing(WebhookSink(server.url)) as sink:
        server.answers = [Answer(400)] * 2000
        with pytest.raises(Reject) as caught:
            sink.write(batch(range(1, 1001)))
        assert [found.id for found in caught.value.records] == ids_of(range(1, 1001))
        assert MOST_REFUSALS <= len(server.requests) <= 2 * MOST_REFUSALS


def test_refused_with_a_body_of_ones_own(server: Scripted) -> None:
    """With a body of one's own only the refused record is rejected."""
    server.answers = [Answer(), Answer(400, b"no"), Answer()]
    with closing(WebhookSink(server.url, body=BODY)) as sink, pytest.raises(Reject) as caught:
        sink.write(batch([1, 2, 3]))
    assert ([found.id for found in caught.value.records], len(server.requests)) == (ids_of([2]), 3)


def test_goes_on_where_it_was(server: Scripted) -> None:
    """Accepted records are not sent again when the batch is retried, and refused ones are still rejected."""
    server.answers = [Answer(), Answer(400, b"no"), Answer(503), None, Answer(200), Answer(200)]
    with closing(WebhookSink(server.url, body=BODY, timeout=0.5)) as sink:
        for _ in range(2):
            with pytest.raises(Retry):
                sink.write(batch([1, 2, 3, 4]))
        with pytest.raises(Reject) as caught:
            sink.write(batch([1, 2, 3, 4]))
        assert [found.id for found in caught.value.records] == ids_of([2])
        sink.write(batch([1, 2, 3, 4], seconds=1))
    asked = [json.loads(asked.body)["id"] for asked in server.requests]
    assert asked == ids_of([1, 2, 3, 3, 3, 4]) + ids_of([1, 2, 3, 4])


class Dripping:
    """A server that sends the same bytes again and again, until the client has gone.

    Args:
        first: The bytes that it sends once.
        again: The bytes that it repeats, after short pauses.
    """

    def __init__(self, first: bytes, again: bytes) -> None:
        """Start it."""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/x"
        self.thread = threading.Thread(target=self.serve, args=(first, again))
        self.thread.start()

    def serve(self, first: bytes, again: bytes) -> None:
        """Serve one client."""
        client, _ = self.listener.accept()
        with client, suppress(OSError):
            client.sendall(first)
            while True:
                client.sendall(again)
                time.sleep(0.05)

    def close(self) -> None:
        """End it."""
        self.thread.join()
        self.listener.close()


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"\r\n"),
    ],
    ids=["headers", "header", "continue", "lines"],
)
def test_slow_answer(first: bytes, again: bytes) -> None:
    """Fault 28: a request ends at its time-out, although the server goes on sending."""
    with closing(Dripping(first, again)) as server, closing(WebhookSink(server.url, timeout=0.4)) as sink:
        with pytest.raises(Retry):
            sink.write(batch([1]))
        sink.close()


def test_slow_body() -> None:
    """A success whose body never ends is a success."""
    first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with closing(Dripping(first, b"1\r\nx\r\n")) as server, closing(WebhookSink(server.url, timeout=0.4)) as sink:
        sink.write(batch([1]))


def test_pending(server: Scripted) -> None:
    """A retry names the records that the server has not accepted, refused ones included."""
    server.answers = [Answer(), Answer(400, b"no"), Answer(), Answer(503)]
    with closing(WebhookSink(server.url, body=BODY)) as sink, pytest.raises(Retry) as caught:
        sink.write(batch([1, 2, 3, 4, 5]))
    assert sorted(found.id for found in caught.value.pending or ()) == ids_of([2, 4, 5])


# -- pitfall 75: redirects and certificates ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_pitfall_75_redirect(server: Scripted, sink: WebhookSink, status: int) -> None:
    """Pitfall 75: a redirect is not followed; its target is reported without parts that may be secret."""
    with closing(Scripted()) as other:
        server.answers = [Answer(status, headers={"Location": f"{other.url}/take?token={TOKEN}"})]
        with pytest.raises(Retry, match=f"{status}, a redirect to {other.url}, which is not followed") as caught:
            sink.write(batch([1]))
        assert other.requests == []
        assert TOKEN not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("location", ["/elsewhere", "//", "http://[", ""])
def test_pitfall_75_odd_redirect(server: Scripted, sink: WebhookSink, location: str) -> None:
    """Pitfall 75: a redirect to nowhere is reported, too."""
    server.answers = [Answer(302, headers={"Location": location})]
    with pytest.raises(Retry, match="302, a redirect to another path of the same server"):
        sink.write(batch([1]))


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[Scripted, Path]]:
    """A server with a certificate for another name, and that certificate as a file."""
    certificate = self_signed(["hooks.example.com"])
    with closing(Scripted(certificate.context())) as server:
        path = tmp_path / "ca.pem"
        path.write_text(certificate.certificate)
        yield server, path


def test_pitfall_75_unknown_certificate(tls: tuple[Scripted, Path]) -> None:
    """Pitfall 75: an untrusted certificate is refused, with the reason, before anything is sent."""
    server, _ = tls
    with (
        closing(WebhookSink(server.url)) as sink,
        pytest.raises(Retry, match=r"certificate verify failed: self.signed"),
    ):
        sink.write(batch([1]))
    assert server.requests == []


def test_pitfall_75_certificate_of_another(tls: tuple[Scripted, Path]) -> None:
    """Pitfall 75: a certificate for another name is refused, with the reason."""
    server, path = tls
    why = r"IP address mismatch, certificate is not valid for '127\.0\.0\.1'"
    with closing(WebhookSink(server.url, ca_file=str(path))) as sink, pytest.raises(Retry, match=why):
        sink.write(batch([1]))
    assert server.requests == []


def test_ca_file(tmp_path: Path) -> None:
    """A server whose certificate the given file vouches for is spoken to."""
    certificate = self_signed(["127.0.0.1"])
    (tmp_path / "ca.pem").write_text(certificate.certificate)
    with closing(Scripted(certificate.context())) as server:
        with closing(WebhookSink(server.url, ca_file=str(tmp_path / "ca.pem"))) as sink:
            sink.write(batch([1]))
        assert lines(server.requests[0]) == ids_of([1])


# -- a server on a bad day --------------------------------------------------------------------------------------------


def test_no_answer(server: Scripted) -> None:
    """Pitfall 47: a server that never answers is given up at the time-out; the next request is answered."""
    server.answers = [None]
    with closing(WebhookSink(server.url, timeout=0.3)) as sink:
        began = time.monotonic()
        with pytest.raises(Retry, match=r"ReadTimeout"):
            sink.write(batch([1]))
        assert time.monotonic() - began < 20  # by default it is 30 s
        sink.write(batch([1]))


def test_unreachable(tmp_path: Path) -> None:
    """An unreachable server, or one without a DNS name, is reported."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/{TOKEN}", f"http://no-such-host.invalid/{TOKEN}"):
        with closing(WebhookSink(url)) as sink, pytest.raises(Retry, match="ConnectError") as caught:
            sink.write(batch([1]))
        assert TOKEN not in str(caught.value)


def test_pitfall_78_endless_answer(server: Scripted, sink: WebhookSink) -> None:
    """Pitfall 78: of an answer without end only so much is read; its status has been told, and the next is sent."""
    server.answers = [Answer(200, endless=b"x" * 65536), Answer(200)]
    tracemalloc.start()
    try:
        sink.write(batch([1]))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    sink.write(batch([2]))
    assert ids(sent(server)) == ids_of([1, 2])


# -- pitfall 72: secrets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [400, 401, 404, 429, 500, 302])
def test_pitfall_72(server: Scripted, sink: WebhookSink, answer: int, caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 72: URL and headers are in no error, log line or repr, also where the server repeats them."""
    echo = f"no: {TOKEN} /hook/{TOKEN}?key={TOKEN} Bearer {TOKEN}".encode()
    server.answers = [Answer(answer, echo)]
    with caplog.at_level(logging.DEBUG), pytest.raises((Retry, Reject)) as caught:
        sink.write(batch([1]))
    sink.write(batch([2]))
    told = f"{caught.value!r} {caught.value} {sink!r} {sink._endpoint!r} {sink._endpoint._redacted!r} {caplog.text}"
    assert TOKEN not in told
    assert server.url in repr(sink)


def test_a_secret_where_an_answer_is_cut(server: Scripted, sink: WebhookSink) -> None:
    """Pitfall 72: the beginning of a long answer is quoted, without half a secret at its end."""
    server.answers = [Answer(401, f"{'x' * 295}{TOKEN}".encode())]
    with pytest.raises(Retry) as caught:
        sink.write(batch([1]))
    assert f"{'x' * 295}(n..." in str(caught.value)


def test_no_proxy_or_netrc(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 72: no credentials of the environment are sent, and no proxy of it gets ours."""
    with tempfile.NamedTemporaryFile("w", suffix="netrc") as netrc:
        netrc.write(f"machine 127.0.0.1 login me password {TOKEN}\n")
        netrc.flush()
        monkeypatch.setenv("NETRC", netrc.name)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        with closing(WebhookSink(server.url)) as sink:
            sink.write(batch([1]))
    assert "authorization" not in server.requests[0].headers


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_no_position(sink: WebhookSink) -> None:
    """A server cannot be asked how far it got."""
    sink.write(Batch([record(1)], position(1)))
    assert (sink.last_position(STREAM), sink.holds_positions) == (None, False)


def test_closed_connections(server: Scripted) -> None:
    """A closed sink leaves no socket open."""
    with closing(WebhookSink(server.url)) as sink:
        sink.write(batch([1]))
    gc.collect()  # a socket left open would be a warning, and warnings are errors
    assert sink._endpoint._pool is None


def test_without_httpx() -> None:
    """Without httpx the error names the extra; the rest of the export works."""
    script = (
        "import sys; sys.modules['httpx'] = None\nfrom kevents.export import WebhookSink\n"
        "try:\n    WebhookSink('https://x')\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("this destination needs httpx: pip install 'kevents[export]'")


def test_tls_is_never_off(sink: WebhookSink) -> None:
    """There is no way to switch off the verification of certificates."""
    assert (sink._endpoint._tls.verify_mode, sink._endpoint._tls.check_hostname) == (ssl.CERT_REQUIRED, True)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


def filled(template: Any, **fields: Any) -> Any:
    """The filled template for a record with these fields."""
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
    """Placeholders are replaced by values of the record; a text that is one placeholder becomes the value itself."""
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
    """A template without placeholders is sent unchanged; its braces are written twice."""
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


# -- batches, filters, answers ----------------------------------------------------------------------------------------


def test_filters(server: Scripted) -> None:
    """Filters give times as numbers, and values as JSON in a text; a value that is no time is null."""
    template = {
        "unix": "{lastTimestamp|unix}",
        "ns": "{ lastTimestamp | unix_ns }",
        "none": "{message|unix}",
        "text": "at {lastTimestamp|unix}: {source|json}",
        "json": "{involvedObject.name|json}",
    }
    with closing(WebhookSink(server.url, body=json.dumps(template))) as sink:
        sink.write(batch([1]))
    assert json.loads(server.requests[0].body) == {
        "unix": 1784883605,
        "ns": 1784883605 * 10**9,
        "none": None,
        "text": 'at 1784883605: {"component":"kubelet","host":"node-1"}',
        "json": '"web-0"',
    }


def test_unknown_filter() -> None:
    """An unknown filter is refused with those there are."""
    with pytest.raises(ValueError, match="has no known filter: use unix, unix_ns, json"):
        WebhookSink("http://x", body='{"a": "{message|upper}"}')


def test_one_request_for_a_batch(server: Scripted) -> None:
    """With texts around the bodies a batch is one request; a refusal is narrowed down."""
    server.answers = [Answer(), Answer(400), Answer(), Answer(400, b"no")]
    with closing(WebhookSink(server.url, body=BODY, prefix="[", separator=",", suffix="]", method="PATCH")) as sink:
        sink.write(batch([1, 2, 3]))
        with pytest.raises(Reject) as caught:
            sink.write(batch([4, 5]))
    assert [[found["id"] for found in json.loads(asked.body)] for asked in server.requests] == [
        ids_of([1, 2, 3]),
        ids_of([4, 5]),
        ids_of([4]),
        ids_of([5]),
    ]
    assert ([found.id for found in caught.value.records], server.requests[0].method) == (ids_of([5]), "PATCH")


def test_texts_need_a_body() -> None:
    """Texts around bodies make no sense for JSON lines."""
    with pytest.raises(ValueError, match="need a body"):
        WebhookSink("http://x", prefix="[")


@pytest.mark.parametrize("answer", [b'{"result":{"ok":false}}', b"{}", b"", b"<html>", b'{"result":[{"ok":true}]}'])
def test_ok_when(server: Scripted, answer: bytes) -> None:
    """A success whose answer does not have these values is retried."""
    server.answers = [Answer(200, answer), Answer(200, b'{"result":{"ok":true,"more":1}}')]
    with closing(WebhookSink(server.url, ok_when={"result.ok": True})) as sink:
        with pytest.raises(Retry, match="does not fulfil ok_when"):
            sink.write(batch([1]))
        sink.write(batch([1]))
    assert len(server.requests) == 2


def test_compressed(server: Scripted) -> None:
    """The body is compressed if asked for."""
    with closing(WebhookSink(server.url, compress="gzip")) as sink:
        sink.write(batch([1]))
    [asked] = server.requests
    assert asked.headers["content-encoding"] == "gzip"
    assert ids(json.loads(line) for line in gzip.decompress(asked.body).split(b"\n")[:-1]) == ids_of([1])
