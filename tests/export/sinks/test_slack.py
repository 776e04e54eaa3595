"""The Slack and Teams sinks: grouping, escaping and limits, against strict servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from kevents.export import Batch, Reject, Retry, SlackSink, TeamsSink
from kevents.export._model.types import gap_record
from tests.export.batches import AT, batch, position, record
from tests.export.products import Slack, Teams
from tests.export.receiver import Answer


@pytest.fixture
def slack() -> Iterator[Slack]:
    """A strict server."""
    with closing(Slack()) as found:
        yield found


@pytest.fixture
def teams() -> Iterator[Teams]:
    """A strict server."""
    with closing(Teams()) as found:
        yield found


def about(name: str, rv: int, message: str = "failed", reason: str = "BackOff", **fields: Any) -> Any:
    """Return a record about a pod."""
    involved = {"kind": "Pod", "namespace": "prod", "name": name}
    return record(rv, message, involvedObject=involved, reason=reason, **fields)


def test_grouped(slack: Slack) -> None:
    """A batch is one message with a line for each object and reason: the count and the latest message."""
    records = [about("a", 1), about("b", 2), about("a", 3, "failed again"), about("a", 4, "gone", "Killing")]
    with closing(SlackSink(f"{slack.url}{Slack.path}")) as sink:
        sink.write(Batch([*records, gap_record(position(4), 5, "expired", AT, 0.0)], position(5)))
    [message] = slack.messages
    assert message["text"].split("\n") == [
        "Kubernetes events",
        "Warning BackOff (x2) Pod prod/a: failed again",
        "Warning BackOff Pod prod/b: failed",
        "Warning Killing Pod prod/a: gone",
        "Gap expired all namespaces: events are missing",
    ]


def test_counts(slack: Slack) -> None:
    """A line counts occurrences, not revisions."""
    one = about("a", 1)
    one.body["kevents"]["countDelta"] = 17
    with closing(SlackSink(f"{slack.url}{Slack.path}", title="")) as sink:
        sink.write(Batch([one, about("a", 2)], position(2)))
    assert slack.messages[0]["text"] == "Warning BackOff (x18) Pod prod/a: failed"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<!channel> help", "&lt;!channel&gt; help"),
        ("<@U1> & <https://evil.example|click>", "&lt;@U1&gt; &amp; &lt;https://evil.example|click&gt;"),
        ("one\ntwo\x1b[31m\u202e", "one\\ntwo\\x1b[31m\\u202e"),
    ],
)
def test_escaped(slack: Slack, text: str, shown: str) -> None:
    """Text of an event is shown literally, without mentions, links or line breaks."""
    with closing(SlackSink(f"{slack.url}{Slack.path}", title="")) as sink:
        sink.write(Batch([about("a", 1, text)], position(1)))
    [message] = slack.messages
    assert message["text"] == f"Warning BackOff Pod prod/a: {shown}"
    assert (message["mrkdwn"], message["parse"], message["unfurl_links"]) == (False, "none", False)


def test_bounded(slack: Slack) -> None:
    """Lines over the limit are only counted, and the message fits Slack's limit."""
    with closing(SlackSink(f"{slack.url}{Slack.path}", max_lines=3)) as sink:
        sink.write(Batch([about(f"p{rv}", rv) for rv in range(1, 11)], position(10)))
    assert slack.messages[0]["text"].split("\n")[-1] == "... and 7 lines more"
    assert len(slack.messages[0]["text"].split("\n")) == 5
    with closing(SlackSink(f"{slack.url}{Slack.path}", max_lines=1000)) as sink:
        sink.write(Batch([about(f"p{rv}", rv, "&" * 1000) for rv in range(1, 1001)], position(1000)))
    assert len(slack.messages[1]["text"]) < 40_000


def test_answers(slack: Slack) -> None:
    """A 429 is retried after Slack's Retry-After. A refused message is rejected as a whole."""
    slack.answers = [Answer(429, headers={"retry-after": "30"}), Answer(404, b"channel_not_found")]
    with closing(SlackSink(f"{slack.url}{Slack.path}")) as sink:
        with pytest.raises(Retry) as caught:
            sink.write(batch([1, 2]))
        assert caught.value.after == 30
        with pytest.raises(Retry, match="channel_not_found"):
            sink.write(batch([1, 2]))
        slack.answers = [Answer(400, b"invalid_payload")]
        with pytest.raises(Reject, match="400 invalid_payload") as refused:
            sink.write(batch([1, 2]))
    assert (len(refused.value.records), len(slack.requests)) == (2, 3)


@pytest.mark.parametrize("url", ["http://hooks.slack.com/x", "http://10.0.0.1/x", "http://localhost.evil.example/x"])
def test_plain_http(url: str) -> None:
    """Plain HTTP is refused except for loopback, because the URL is a secret. This includes URLs from functions."""
    with pytest.raises(ValueError, match="it is a secret"):
        SlackSink(url)
    with closing(SlackSink(lambda: url)) as sink, pytest.raises(Retry):
        sink.write(batch([1]))


def test_teams(teams: Teams) -> None:
    """A message is an adaptive card. Markdown in the text of events is escaped."""
    with closing(TeamsSink(f"{teams.url}{Teams.path}")) as sink:
        sink.write(Batch([about("a", 1, "see [this](https://evil.example) <at>all</at> *now*")], position(1)))
    assert teams.cards == [
        [
            "Kubernetes events",
            "Warning BackOff Pod prod/a: see \\[this\\]\\(https://evil\\.example\\) &lt;at\\>all&lt;/at\\> \\*now\\*",
        ]
    ]


def test_a_large_card(teams: Teams) -> None:
    """A card fits the size limit of Teams."""
    with closing(TeamsSink(f"{teams.url}{Teams.path}", max_lines=100)) as sink:
        sink.write(Batch([about(f"p{rv}", rv, "*" * 1000) for rv in range(1, 101)], position(100)))
    assert teams.cards[0][-1].endswith("lines more")
