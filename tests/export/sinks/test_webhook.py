"""The webhook sink: requests, answers and redaction of secrets."""

from __future__ import annotations

import gc
import gzip
import json
import logging
import socket
import ssl
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
from kevents.export._sinks.webhook import compile_template
from kevents.testing._apiserver.server import self_signed
from tests.export.batches import STREAM, batch, body, ids, ids_of, position, record
from tests.export.receiver import Answer, Scripted
from tests.export.sink_contract import Place, SinkContract

ROOT = Path(__file__).parents[3]
TOKEN = "hush-hush-token-of-someone"
BODY = '{"text": "{type} {reason}: {message}", "id": "{kevents.id}", "event": "{.}"}'


@pytest.fixture
def server() -> Iterator[Scripted]:
    """A server with scripted answers."""
    with closing(Scripted()) as found:
        yield found


@pytest.fixture
def sink(server: Scripted) -> Iterator[WebhookSink]:
    """A sink whose URL and header contain a secret."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with closing(WebhookSink(f"{server.url}/hook/{TOKEN}?key={TOKEN}", headers=headers, timeout=10)) as found:
        yield found


def sent(server: Scripted) -> list[dict[str, Any]]:
    """Return all records that were sent, including refused ones."""
    return [json.loads(line) for asked in server.requests for line in asked.body.split(b"\n")[:-1]]


def test_kept_connection(server: Scripted, sink: WebhookSink) -> None:
    """A connection is kept for later batches. One that the server has closed is replaced, and nothing is lost."""
    for number in range(1, 4):
        sink.write(batch([number]))
    assert len(server.ports) == 1
    server.answers = [Answer(headers={"connection": "close"})]
    for number in range(4, 7):
        sink.write(batch([number]))
    assert len(server.ports) == 2
    assert ids(sent(server)) == ids_of(range(1, 7))


def test_refused_before_the_end() -> None:
    """A server that answers without reading a long body, and closes, has refused it: 413 of a proxy."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connected, _ = listener.accept()
                with connected:
                    connected.recv(1 << 16)
                    connected.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        long = record(1, "x" * (32 << 20))
        with closing(WebhookSink(url, timeout=10)) as sink, pytest.raises(Reject) as refused:
            sink.write(Batch([long], position(1)))
        listener.shutdown(socket.SHUT_RDWR)
    assert refused.value.records == [long]


def lines(asked: Any) -> list[str]:
    """Return the ids of the records in a request."""
    return ids(json.loads(line) for line in asked.body.split(b"\n")[:-1])


class TestWebhookSink(SinkContract):
    """The contract with JSON lines."""

    @pytest.fixture
    def place(self, server: Scripted) -> Place:
        """The server's requests as the destination."""
        return Place(lambda: WebhookSink(server.url), lambda: sent(server))


class TestTemplate(SinkContract):
    """The contract with a body template."""

    @pytest.fixture
    def place(self, server: Scripted) -> Place:
        """The server's requests as the destination."""
        return Place(
            lambda: WebhookSink(server.url, body=BODY),
            lambda: [json.loads(asked.body)["event"] for asked in server.requests],
        )


# -- requests ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_a_request(server: Scripted, sink: WebhookSink) -> None:
    """Without a template, a batch is one request of JSON lines. All requests share one connection."""
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
    """With a body template, each record is one request, in order."""
    headers = {"Content-Type": "application/cloudevents+json"}
    with closing(WebhookSink(server.url, method="PUT", body=BODY, headers=headers)) as sink:
        sink.write(batch([1, 2]))
    assert [json.loads(asked.body)["id"] for asked in server.requests] == ["uid-1:1", "uid-2:2"]
    assert json.loads(server.requests[0].body)["text"] == "Warning BackOff: message 1"
    assert {(a.method, a.headers["content-type"]) for a in server.requests} == {("PUT", "application/cloudevents+json")}


def test_headers_are_asked_for(server: Scripted) -> None:
    """URL and headers can be functions, so that a renewed secret is used in the next request."""
    tokens = iter(["one", "two"])
    with closing(WebhookSink(lambda: server.url + "/x", headers={"X-Token": lambda: f" {next(tokens)}\n"})) as sink:
        sink.write(batch([1]))
        sink.write(batch([2]))
    assert [(asked.path, asked.headers["x-token"]) for asked in server.requests] == [("/x", "one"), ("/x", "two")]


def untold() -> str:
    """Raise an error that contains a secret."""
    raise OSError(f"no such thing: {TOKEN}")


@pytest.mark.parametrize("broken", [lambda: TOKEN + "\nX: y", lambda: 1 // 0, lambda: 7, untold])
def test_a_header_that_cannot_be_had(server: Scripted, broken: Any) -> None:
    """Pitfall 72: an unavailable or invalid header is reported without its value, and requested again."""
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
    """An invalid option is refused with its name, without secret values."""
    with pytest.raises(ValueError, match=why) as caught:
        WebhookSink(**{"url": "https://x", **values})
    assert TOKEN not in str(caught.value)


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_success(server: Scripted, sink: WebhookSink, status: int) -> None:
    """Any 2xx is a success, whatever the body."""
    server.answers = [Answer(status, b"" if status == 204 else b"\xff{")]
    sink.write(batch([1]))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 407, 408, 410, 415, 425, 429, 500, 502, 503, 504, 599])
def test_later(server: Scripted, sink: WebhookSink, status: int) -> None:
    """Answers that concern the endpoint or ask to wait are retried, and no record is rejected."""
    server.answers = [Answer(status, b"because so")]
    with pytest.raises(Retry, match=f"{status} because so"):
        sink.write(batch([1, 2]))
    sink.write(batch([1, 2]))
    assert [lines(asked) for asked in server.requests] == [ids_of([1, 2])] * 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("header", "expected"), [("3", 3.0), ("-1", None), ("9999", 60.0), ("soon", None), ("", None)])
def test_retry_after(server: Scripted, sink: WebhookSink, status: int, header: str, expected: float | None) -> None:
    """Pitfall 39: a valid Retry-After is returned in seconds, up to a maximum. Invalid ones are ignored."""
    server.answers = [Answer(status, headers={"Retry-After": header})]
    with pytest.raises(Retry) as caught:
        sink.write(batch([1]))
    assert caught.value.after == expected


def test_retry_after_a_date(server: Scripted, sink: WebhookSink) -> None:
    """Pitfall 39: Retry-After can be a date."""
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    server.answers = [Answer(429, headers={"Retry-After": date})]
    with pytest.raises(Retry) as caught:
        sink.write(batch([1]))
    assert caught.value.after is not None
    assert 20 < caught.value.after <= 30


class Picky(Scripted):
    """Refuses requests that contain certain records."""

    def __init__(self, *refused: int, status: int = 422) -> None:
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

            do_POST = answer  # noqa: N815 - the name that http.server calls

        return Handler


@pytest.mark.parametrize(
    ("status", "refused"),
    [
        *((400, refused) for refused in ([3], [1], [8], [3, 4], [1, 8], [1, 2, 3, 4, 5, 6, 7, 8])),
        *((status, [3, 4]) for status in (409, 413, 414, 422, 418)),
    ],
)
def test_refused(status: int, refused: list[int]) -> None:
    """A refusal is narrowed down to the refused records. The others are delivered once and in order."""
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
    """If the server refuses everything, the number of requests is bounded and all records are rejected."""
    with closing(Scripted()) as server, closing(WebhookSink(server.url)) as sink:
        server.answers = [Answer(400)] * 2000
        with pytest.raises(Reject) as caught:
            sink.write(batch(range(1, 1001)))
        assert [found.id for found in caught.value.records] == ids_of(range(1, 1001))
        assert MOST_REFUSALS <= len(server.requests) <= 2 * MOST_REFUSALS


def test_refused_with_a_body_of_ones_own(server: Scripted) -> None:
    """With a body template, only the refused record is rejected."""
    server.answers = [Answer(), Answer(400, b"no"), Answer()]
    with closing(WebhookSink(server.url, body=BODY)) as sink, pytest.raises(Reject) as caught:
        sink.write(batch([1, 2, 3]))
    assert ([found.id for found in caught.value.records], len(server.requests)) == (ids_of([2]), 3)


def test_goes_on_where_it_was(server: Scripted) -> None:
    """When a batch is retried, accepted records are not sent again, and refused ones are still rejected."""
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
    """A server that repeats the same bytes until the client disconnects.

    Args:
        first: The bytes that it sends once.
        again: The bytes that it repeats, after short pauses.
    """

    def __init__(self, first: bytes, again: bytes) -> None:
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
        """Stop the server."""
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
    """Fault 28: a request ends at its time-out even if the server continues to send."""
    with closing(Dripping(first, again)) as server, closing(WebhookSink(server.url, timeout=0.4)) as sink:
        with pytest.raises(Retry):
            sink.write(batch([1]))
        sink.close()


def test_slow_body() -> None:
    """A 2xx with an endless body is a success."""
    first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with closing(Dripping(first, b"1\r\nx\r\n")) as server, closing(WebhookSink(server.url, timeout=0.4)) as sink:
        sink.write(batch([1]))


def test_pending(server: Scripted) -> None:
    """`Retry.pending` contains the records that were not accepted, including refused ones."""
    server.answers = [Answer(), Answer(400, b"no"), Answer(), Answer(503)]
    with closing(WebhookSink(server.url, body=BODY)) as sink, pytest.raises(Retry) as caught:
        sink.write(batch([1, 2, 3, 4, 5]))
    assert sorted(found.id for found in caught.value.pending or ()) == ids_of([2, 4, 5])


# -- pitfall 75: redirects and certificates ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_pitfall_75_redirect(server: Scripted, sink: WebhookSink, status: int) -> None:
    """Pitfall 75: a redirect is not followed. Its target is reported without parts that may be secret."""
    with closing(Scripted()) as other:
        server.answers = [Answer(status, headers={"Location": f"{other.url}/take?token={TOKEN}"})]
        with pytest.raises(Retry, match=f"{status}, a redirect to {other.url}, which is not followed") as caught:
            sink.write(batch([1]))
        assert other.requests == []
        assert TOKEN not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("location", ["/elsewhere", "//", "http://[", ""])
def test_pitfall_75_odd_redirect(server: Scripted, sink: WebhookSink, location: str) -> None:
    """Pitfall 75: a redirect with an invalid target is reported."""
    server.answers = [Answer(302, headers={"Location": location})]
    with pytest.raises(Retry, match="302, a redirect to another path of the same server"):
        sink.write(batch([1]))


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[Scripted, Path]]:
    """A server with a certificate for another name, and that certificate as a file."""
    certificate = self_signed(["hooks.example.com"])
    with closing(Scripted(certificate.context)) as server:
        path = tmp_path / "ca.pem"
        path.write_text(certificate.certificate)
        yield server, path


def test_pitfall_75_unknown_certificate(tls: tuple[Scripted, Path]) -> None:
    """Pitfall 75: an untrusted certificate is refused with the reason, and nothing is sent."""
    server, _ = tls
    with (
        closing(WebhookSink(server.url)) as sink,
        pytest.raises(Retry, match=r"certificate verify failed: self.signed"),
    ):
        sink.write(batch([1]))
    assert server.requests == []


def test_pitfall_75_certificate_of_another(tls: tuple[Scripted, Path]) -> None:
    """Pitfall 75: a certificate for another name is refused with the reason."""
    server, path = tls
    why = r"IP address mismatch, certificate is not valid for '127\.0\.0\.1'"
    with closing(WebhookSink(server.url, ca_file=str(path))) as sink, pytest.raises(Retry, match=why):
        sink.write(batch([1]))
    assert server.requests == []


def test_ca_file(tmp_path: Path) -> None:
    """A certificate in `ca_file` is trusted."""
    certificate = self_signed(["127.0.0.1"])
    (tmp_path / "ca.pem").write_text(certificate.certificate)
    with closing(Scripted(certificate.context)) as server:
        with closing(WebhookSink(server.url, ca_file=str(tmp_path / "ca.pem"))) as sink:
            sink.write(batch([1]))
        assert lines(server.requests[0]) == ids_of([1])


# -- failing servers --------------------------------------------------------------------------------------------------


def test_no_answer(server: Scripted) -> None:
    """Pitfall 47: a request without an answer ends at the time-out, and the next one succeeds."""
    server.answers = [None]
    with closing(WebhookSink(server.url, timeout=0.3)) as sink:
        began = time.monotonic()
        with pytest.raises(Retry, match=r"TimeoutError"):
            sink.write(batch([1]))
        assert time.monotonic() - began < 20  # the default is 30 s
        sink.write(batch([1]))


def test_unreachable(tmp_path: Path) -> None:
    """An unreachable host and an unknown DNS name are reported without the secret."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/{TOKEN}", f"http://no-such-host.invalid/{TOKEN}"):
        with (
            closing(WebhookSink(url)) as sink,
            pytest.raises(Retry, match=r"Refused|gaierror") as caught,
        ):
            sink.write(batch([1]))
        assert TOKEN not in str(caught.value)


def test_pitfall_78_endless_answer(server: Scripted, sink: WebhookSink) -> None:
    """Pitfall 78: only the beginning of an endless answer is read, and its status counts."""
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
    """Pitfall 72: URL and headers appear in no error, log line or repr, even if the server echoes them."""
    echo = f"no: {TOKEN} /hook/{TOKEN}?key={TOKEN} Bearer {TOKEN}".encode()
    server.answers = [Answer(answer, echo)]
    with caplog.at_level(logging.DEBUG), pytest.raises((Retry, Reject)) as caught:
        sink.write(batch([1]))
    sink.write(batch([2]))
    told = f"{caught.value!r} {caught.value} {sink!r} {sink._endpoint!r} {sink._endpoint._redacted!r} {caplog.text}"
    assert TOKEN not in told
    assert server.url in repr(sink)


def test_a_secret_where_an_answer_is_cut(server: Scripted, sink: WebhookSink) -> None:
    """Pitfall 72: the quoted beginning of a long answer does not end with part of a secret."""
    server.answers = [Answer(401, f"{'x' * 295}{TOKEN}".encode())]
    with pytest.raises(Retry) as caught:
        sink.write(batch([1]))
    assert f"{'x' * 295}(n..." in str(caught.value)


def test_no_proxy_or_netrc(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 72: credentials and proxies from the environment are not used."""
    with tempfile.NamedTemporaryFile("w", suffix="netrc") as netrc:
        netrc.write(f"machine 127.0.0.1 login me password {TOKEN}\n")
        netrc.flush()
        monkeypatch.setenv("NETRC", netrc.name)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        with closing(WebhookSink(server.url)) as sink:
            sink.write(batch([1]))
    assert "authorization" not in server.requests[0].headers


# -- other ------------------------------------------------------------------------------------------------------------


def test_no_position(sink: WebhookSink) -> None:
    """A webhook holds no position."""
    sink.write(Batch([record(1)], position(1)))
    assert (sink.last_position(STREAM), sink.holds_positions) == (None, False)


def test_closed_connections(server: Scripted) -> None:
    """Closing the sink closes its sockets."""
    with closing(WebhookSink(server.url)) as sink:
        sink.write(batch([1]))
    gc.collect()  # a socket left open would be a warning, and warnings are errors
    assert sink._endpoint._connection is None


def test_tls_is_never_off(sink: WebhookSink) -> None:
    """Certificates are always verified."""
    assert (sink._endpoint._tls.verify_mode, sink._endpoint._tls.check_hostname) == (ssl.CERT_REQUIRED, True)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


def filled(template: Any, **fields: Any) -> Any:
    """Return the filled template for a record with these fields."""
    return json.loads(compile_template(json.dumps(template))({**body(7), **fields}))


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
    """Placeholders are replaced by values of the record. A text that is one placeholder becomes the value itself."""
    fields = {"owners": [{"name": "a"}, {"name": "b"}]}
    metadata = {**body(7)["metadata"], "labels": {"app.kubernetes.io/name": "web", "x": "y"}}
    assert filled(template, metadata=metadata, **fields) == expected


def test_the_whole_record() -> None:
    """`{.}` is the whole record."""
    assert filled({"event": "{.}"}) == {"event": body(7)}


@given(TEXT)
def test_nothing_breaks_out(text: str) -> None:
    """Any message stays within its JSON string."""
    expected = {"text": f"said: {text}"}
    assert filled({"text": "said: {message}"}, message=text) == expected


@given(JSON)
def test_without_places(value: Any) -> None:
    """A template without placeholders is sent unchanged, and doubled braces become single ones."""
    assert json.loads(compile_template(json.dumps(doubled(value)))({})) == value


def doubled(value: Any) -> Any:
    """Return the value with doubled braces in its texts, but not in its keys."""
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
    """An invalid template is refused with the invalid part."""
    with pytest.raises(ValueError, match=why):
        compile_template(text)


# -- batches, filters, answers ----------------------------------------------------------------------------------------


def test_filters(server: Scripted) -> None:
    """Filters give times as numbers and values as JSON text. A value that is no time becomes null."""
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
    """An unknown filter is refused with the known ones."""
    with pytest.raises(ValueError, match="has no known filter: use unix, unix_ns, json"):
        WebhookSink("http://x", body='{"a": "{message|upper}"}')


def test_one_request_for_a_batch(server: Scripted) -> None:
    """With prefix, separator and suffix, a batch is one request. A refusal is narrowed down."""
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
    """A prefix without a body template is refused."""
    with pytest.raises(ValueError, match="need a body"):
        WebhookSink("http://x", prefix="[")


@pytest.mark.parametrize("answer", [b'{"result":{"ok":false}}', b"{}", b"", b"<html>", b'{"result":[{"ok":true}]}'])
def test_ok_when(server: Scripted, answer: bytes) -> None:
    """A 2xx whose body does not match `ok_when` is retried."""
    server.answers = [Answer(200, answer), Answer(200, b'{"result":{"ok":true,"more":1}}')]
    with closing(WebhookSink(server.url, ok_when={"result.ok": True})) as sink:
        with pytest.raises(Retry, match="does not fulfil ok_when"):
            sink.write(batch([1]))
        sink.write(batch([1]))
    assert len(server.requests) == 2


def test_compressed(server: Scripted) -> None:
    """With `compress`, the body is compressed."""
    with closing(WebhookSink(server.url, compress="gzip")) as sink:
        sink.write(batch([1]))
    [asked] = server.requests
    assert asked.headers["content-encoding"] == "gzip"
    assert ids(json.loads(line) for line in gzip.decompress(asked.body).split(b"\n")[:-1]) == ids_of([1])
