"""The Slack and Teams sinks: one message for each batch, with one line for each object and reason."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from kevents._model.wire import clip, pluralize, printable
from kevents.export._model.types import Record, value_at
from kevents.export._sinks.http import Endpoint, HttpSink, Text

_LONGEST_LINE: Final = 300  # characters
_LINE_OVERHEAD: Final = 60  # bytes of JSON around a line of a card
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>])")


class ChatSink(HttpSink):
    """Base class of sinks that send messages to people. Raises ValueError if an argument has a wrong value."""

    _longest = 36_000  # bytes of the lines; Slack cuts messages of 40,000 characters
    _halves = False  # a refused message is not sent again in parts: people would read several

    def __init__(
        self,
        url: Text,  # the secret address of the webhook, or a function that returns it. Plain HTTP is for loopback only.
        *,
        title: str = "Kubernetes events",  # the first line of a message
        max_lines: int = 20,  # lines of a message; the others are counted in its last line
        timeout: float = 30.0,  # seconds for a request, from the connection to the end of the answer
        ca_file: str | None = None,  # a file of certificates to trust instead of the system's
    ) -> None:
        if isinstance(url, str):
            check_chat_url(url)
        self._title = title
        self._max_lines = max_lines
        checked = url if isinstance(url, str) else lambda: check_chat_url(url())
        super().__init__(Endpoint(checked, None, timeout, ca_file))

    def _send(self, records: Sequence[Record]) -> None:
        lines = _lines(records)
        escaped: list[str] = []
        size = 0
        for line in lines[: self._max_lines]:
            text = self._escape(line)
            size += len(msgspec.json.encode(text)) + _LINE_OVERHEAD
            if size > self._longest:
                break
            escaped.append(text)
        if left := len(lines) - len(escaped):
            escaped.append(self._escape(f"... and {pluralize(left, 'line')} more"))
        title = [self._escape(self._title)] if self._title else []
        body = msgspec.json.encode(self._message([*title, *escaped]))
        self._endpoint.send(body, {"content-type": "application/json; charset=utf-8"})

    @abstractmethod
    def _escape(self, text: str) -> str:
        """Escape a line, so that its text is shown and nothing in it is a command."""

    @abstractmethod
    def _message(self, lines: list[str]) -> Mapping[str, Any]:
        """Return the request for escaped lines."""


class SlackSink(ChatSink):
    """Sends one message a batch to a Slack incoming webhook, grouped by object and reason. It holds no position.

    Mentions, links and formatting in the text of events are shown as text. 429 is retried after `Retry-After`.

    Args:
        url: The webhook's address, a secret; or a function that returns it. Plain HTTP is for loopback only.
        title: The first line of a message; empty: none.
        max_lines: Lines of a message; the others are counted in its last line.
        timeout: Seconds for a request, from the connection to the end of the answer.
        ca_file: A file of certificates to trust instead of the system's.

    Raises:
        ValueError: If an argument has a wrong value.
    """

    def _escape(self, text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    def _message(self, lines: list[str]) -> Mapping[str, Any]:
        text = "\n".join(lines)
        # parse "none": names and URLs in the text become no mentions and no links.
        return {"text": text, "mrkdwn": False, "parse": "none", "unfurl_links": False, "unfurl_media": False}


class TeamsSink(ChatSink):
    """Sends one message a batch to a webhook of Microsoft Teams (Workflows), as an adaptive card. It holds no position.

    The arguments are those of :class:`SlackSink`.
    """

    _longest = 24_000  # Teams refuses messages of 28 KB

    def _escape(self, text: str) -> str:
        return _MARKDOWN.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))

    def _message(self, lines: list[str]) -> Mapping[str, Any]:
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [{"type": "TextBlock", "text": line, "wrap": True} for line in lines],
        }
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
        return {"type": "message", "attachments": [attachment]}


def _lines(records: Sequence[Record]) -> list[str]:
    """Return a line for each object and reason, with the number and the latest message."""
    groups: dict[tuple[str, str, str], tuple[int, str]] = {}
    for record in records:
        key, message = _group(record.body)
        delta = value_at(record.body, "kevents", "countDelta")
        count, _ = groups.get(key, (0, ""))
        groups[key] = (count + (delta if isinstance(delta, int) else 1), message)
    return [
        clip(printable(f"{kind} {reason}{f' (x{count})' if count > 1 else ''} {target}: {message}"), _LONGEST_LINE)
        for (kind, reason, target), (count, message) in groups.items()
    ]


def _group(body: Mapping[str, Any]) -> tuple[tuple[str, str, str], str]:
    gap = value_at(body, "kevents", "gap")
    if gap is not None:
        return ("Gap", str(value_at(gap, "why")), str(value_at(gap, "scope") or "all namespaces")), "events are missing"
    kind, namespace, name = (value_at(body, "involvedObject", key) or "" for key in ("kind", "namespace", "name"))
    target = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
    return (str(body.get("type") or ""), str(body.get("reason") or ""), target), str(body.get("message") or "")


def check_chat_url(url: str) -> str:
    """Check and return the address of a webhook. Raises ValueError if it is plain HTTP to another machine."""
    parts = urlsplit(url.strip())
    host = parts.hostname or ""
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if parts.scheme == "http" and not loopback:
        raise ValueError("the URL must be https://...: it is a secret")
    return url
