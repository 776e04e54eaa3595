"""Strict servers of the products that records are sent to: they check the documented wire formats."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any
from uuid import UUID

from tests.export.receiver import Answer, Asked, Scripted

HOUR = 3600 * 10**9


class Product(Scripted):
    """A server with one path.

    Attributes:
        path: The path of its requests.
    """

    path = "/"
    content_type = "application/json"

    def reply(self, asked: Asked) -> Answer:
        """Check the parts that all products share, then the body."""
        if asked.method != "POST":
            return Answer(405)
        if asked.path.partition("?")[0] != self.path:
            return Answer(404, b"404 page not found")
        if asked.headers.get("content-type", "").partition(";")[0] != self.content_type:
            return Answer(415, b"unsupported content type")
        body = asked.body
        if (encoding := asked.headers.get("content-encoding")) is not None:
            if encoding != "gzip":
                return Answer(415, b"unsupported content encoding")
            body = gzip.decompress(body)
        return self.take(asked, body)

    def take(self, asked: Asked, body: bytes) -> Answer:
        """Answer a well-formed request."""
        raise NotImplementedError


class Loki(Product):
    """Grafana Loki's push API: https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs.

    Attributes:
        tenant: The tenant that requests must name; empty: none.
        lines: The stored lines by their labels, as pairs of time and line.
        oldest: Lines before this time, in nanoseconds, are refused.
    """

    path = "/loki/api/v1/push"

    def __init__(self, tenant: str = "") -> None:
        self.tenant = tenant
        self.oldest = 0
        self.order: list[str] = []
        self.lines: dict[tuple[tuple[str, str], ...], list[tuple[int, str]]] = {}
        super().__init__()

    def take(self, asked: Asked, body: bytes) -> Answer:
        """Store lines. Like Loki, refuse old lines and store the others of the request."""
        if asked.headers.get("x-scope-orgid", "") != self.tenant:
            return Answer(401, b"no org id")
        try:
            streams = json.loads(body)["streams"]
            for stream in streams:
                labels, values = stream["stream"], stream["values"]
                assert set(stream) == {"stream", "values"}
                assert labels
                assert values
                assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) for name in labels)
                assert all(isinstance(value, str) and value for value in labels.values())
                assert all(re.fullmatch(r"\d{19}", time) and isinstance(line, str) for time, line in values)
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            return Answer(400, f"loghttp.PushRequest: {error!r}".encode())
        errors = []
        for stream in streams:
            known = self.lines.setdefault(tuple(sorted(stream["stream"].items())), [])
            for text, line in stream["values"]:
                time = int(text)
                newest = max((found for found, _ in known), default=0)
                if time < self.oldest:
                    errors.append(f"entry for stream '{stream['stream']}' has timestamp too old: {text}")
                elif time < newest - HOUR:
                    errors.append(f"entry too far behind, entry timestamp is: {text}")
                elif (time, line) not in known:
                    known.append((time, line))
                    self.order.append(line)
        return Answer(400, errors[-1].encode()) if errors else Answer(204)


class Elasticsearch(Product):
    """Elasticsearch's bulk API: https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk.

    Attributes:
        documents: The stored documents by index and id.
        faults: The statuses of the next answers for a document, by its id.
        created: The ids of the created documents, in order.
        conflicts: The number of documents that were sent again.
        largest: The largest body, in bytes.
    """

    path = "/_bulk"
    content_type = "application/x-ndjson"

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self.faults: dict[str, list[int]] = {}
        self.created: list[str] = []
        self.conflicts = 0
        self.largest = 100 << 20
        super().__init__()

    def take(self, asked: Asked, body: bytes) -> Answer:
        """Create documents, each with its own status."""
        if len(body) > self.largest:
            return Answer(413)
        if not body.endswith(b"\n"):
            return _error(400, "illegal_argument_exception", "The bulk request must be terminated by a newline [\\n]")
        lines = body.split(b"\n")[:-1]
        try:
            pairs = [
                (json.loads(action), json.loads(source)) for action, source in zip(*[iter(lines)] * 2, strict=True)
            ]
        except ValueError as error:
            return _error(400, "illegal_argument_exception", f"Malformed action/metadata line: {error}")
        items = [{"create": self.create(action["create"], source)} for action, source in pairs]
        assert "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason" in asked.path
        answer = {"errors": any(item["create"]["status"] > 299 for item in items), "items": items}
        return Answer(200, json.dumps(answer).encode())

    def create(self, action: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
        """Create one document."""
        index, name = action["_index"], action["_id"]
        assert set(action) == {"_index", "_id"}
        assert len(name.encode()) <= 512
        if not re.fullmatch(r'[^A-Z\\/*?"<>| ,#:]{1,255}', index) or index[0] in "-_+":
            return _item(400, "invalid_index_name_exception", f"Invalid index name [{index}]")
        if self.faults.get(name):
            status = self.faults[name].pop(0)
            return _item(
                status, "document_parsing_exception" if status < 429 else "es_rejected_execution_exception", name
            )
        if (index, name) in self.documents:
            self.conflicts += 1
            return _item(
                409, "version_conflict_engine_exception", f"[{name}]: version conflict, document already exists"
            )
        self.documents[index, name] = source
        self.created.append(name)
        return {"status": 201}


def _item(status: int, kind: str, reason: str) -> dict[str, Any]:
    return {"status": status, "error": {"type": kind, "reason": reason}}


def _error(status: int, kind: str, reason: str) -> Answer:
    return Answer(status, json.dumps({"error": {"type": kind, "reason": reason}, "status": status}).encode())


class Splunk(Product):
    """Splunk's HTTP Event Collector: https://docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector.

    Attributes:
        token: The only valid token.
        indexes: The indexes that the token may write to.
        events: The accepted events.
    """

    path = "/services/collector/event"

    def __init__(self, token: str) -> None:
        self.token = token
        self.indexes = {"k8s"}
        self.events: list[dict[str, Any]] = []
        super().__init__()

    def take(self, asked: Asked, body: bytes) -> Answer:
        """Accept all events of a request, or none."""
        return self.refuse_token(asked) or self.accept(body)

    def refuse_token(self, asked: Asked) -> Answer | None:
        """Refuse a wrong token."""
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        if not token:
            return _hec(401, "Token is required", 2)
        if scheme != "Splunk":
            return _hec(401, "Invalid authorization", 3)
        if token != self.token:
            return _hec(403, "Invalid token", 4)
        UUID(asked.headers["x-splunk-request-channel"])
        return None

    def accept(self, body: bytes) -> Answer:
        """Accept events."""
        decoder, text, events = json.JSONDecoder(), body.decode(), []
        while text := text.lstrip():
            try:
                event, end = decoder.raw_decode(text)
            except ValueError:
                return _hec(400, "Invalid data format", 6, len(events))
            text = text[end:]
            for wrong, why, code in (
                ("event" not in event, "Event field is required", 12),
                (not event.get("event"), "Event field cannot be blank", 13),
                (not re.fullmatch(r"\d{10}\.\d{3}", event["time"]), "Invalid data format", 6),
                ("bad" in str(event["event"].get("message")), "Invalid data format", 6),
                (event.get("index", "k8s") not in self.indexes, "Incorrect index", 7),
            ):
                if wrong:
                    return _hec(400, why, code, len(events))
            assert set(event) <= {"time", "host", "source", "sourcetype", "index", "event"}
            events.append(event)
        if not events:
            return _hec(400, "No data", 5)
        self.events += events
        return _hec(200, "Success", 0)


def _hec(status: int, text: str, code: int, number: int | None = None) -> Answer:
    more = {} if number is None else {"invalid-event-number": number}
    return Answer(status, json.dumps({"text": text, "code": code, **more}).encode())


class Slack(Product):
    """Slack's incoming webhooks: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks."""

    path = "/services/T1/B1/secret"

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        super().__init__()

    def take(self, asked: Asked, body: bytes) -> Answer:
        """Post a message."""
        try:
            message = json.loads(body)
        except ValueError:
            return Answer(400, b"invalid_payload")
        if not message.get("text"):
            return Answer(400, b"missing_text_or_fallback_or_attachments")
        if len(message["text"]) > 40_000:
            return Answer(400, b"msg_too_long")
        self.messages.append(message)
        return Answer(200, b"ok")


class Teams(Product):
    """The webhooks of Teams' Workflows: https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors."""

    path = "/workflows/1"

    def __init__(self) -> None:
        self.cards: list[list[str]] = []
        super().__init__()

    def take(self, asked: Asked, body: bytes) -> Answer:
        """Post a card."""
        if len(body) > 28 << 10:
            return Answer(413)
        message = json.loads(body)
        [attachment] = message["attachments"]
        card = attachment["content"]
        if (message["type"], attachment["contentType"], card["type"]) != (
            "message",
            "application/vnd.microsoft.card.adaptive",
            "AdaptiveCard",
        ):
            return Answer(400, b"bad card")
        self.cards.append([block["text"] for block in card["body"] if block["type"] == "TextBlock" and block["wrap"]])
        return Answer(202)
