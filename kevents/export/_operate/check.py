"""The command ``kevents check``: validates a configuration, and explains the routes of events."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from kevents._model.wire import pluralize, printable
from kevents.export._config.file import load
from kevents.export._config.schema import Config
from kevents.export._operate.build import check_sinks
from kevents.export._route.routes import Answer, Router, is_gap

NOT_ROUTED = 1


class EventFileError(Exception):
    """The file contains no event. The text names the file, the error and the fix."""


def check(config: Path, event: str | None, stream: TextIO) -> int:
    """Check a configuration, and explain the routes of events.

    Args:
        config: The file of the configuration.
        event: A file with an event, a list of events, or lines of exported records; ``-`` for standard input; None to
            check the configuration only.
        stream: The output.

    Returns:
        0, or 1 if an event has no destination.

    Raises:
        ConfigError: If the configuration is invalid.
        EventFileError: If the file contains no event.
    """
    settings = load(config)
    check_sinks(settings)
    if event is None:
        stream.write(f"{summary(settings)}\n")
        return 0
    router = Router(settings.routes)
    lines: list[str] = []
    status = 0
    for body in events_of(event):
        targets = router.targets_of(body)
        lines += [_title(body), *_answers(router, body), f"  -> {', '.join(targets) or 'nowhere'}"]
        status = status if targets else NOT_ROUTED
    stream.write("".join(f"{printable(line)}\n" for line in lines))
    return status


def summary(config: Config) -> str:
    """A valid configuration in one line."""
    sinks = ", ".join(f"{sink.name} ({sink.type})" for sink in config.sinks.values())
    return printable(f"{config.file}: good; {pluralize(len(config.routes), 'route')}, sinks: {sinks}")


def events_of(file: str) -> Iterator[dict[str, Any]]:
    """The events of a file, which kubectl has written with ``-o json``, or an export line by line.

    Raises:
        EventFileError: If the file is unreadable, or contains no event.
    """
    text = _text(file)
    try:
        found = [json.loads(text)]
    except ValueError:
        found = [_line(file, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    events = [event for each in found for event in _items(each)]
    if not events:
        raise EventFileError(f"{file}: contains no event: give what 'kubectl get event NAME -o json' prints")
    for event in events:
        if not isinstance(event, dict) or not ({"involvedObject", "regarding"} & set(event) or is_gap(event)):
            raise EventFileError(
                f"{file}: not an event, because it has no involvedObject: give what 'kubectl get event NAME -o json' "
                "prints"
            )
        yield _as_core(event)


def _items(found: Any) -> list[Any]:  # noqa: ANN401
    if not isinstance(found, dict) or "items" not in found:
        return [found]
    items = found["items"]
    return items if isinstance(items, list) else []


def _text(file: str) -> str:
    try:
        return (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode("utf-8-sig")
    except OSError as error:
        raise EventFileError(f"{file}: cannot be read ({error.strerror or type(error).__name__})") from None
    except UnicodeDecodeError as error:
        raise EventFileError(f"{file}: is not UTF-8 text (byte {error.start})") from None


def _line(file: str, number: int, line: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(line)
    except ValueError as error:
        raise EventFileError(f"{file}:{number}: is not valid JSON ({error})") from None


def _as_core(event: dict[str, Any]) -> dict[str, Any]:
    """An event of events.k8s.io/v1, as 'kubectl get events.events.k8s.io' prints it, with the names of core/v1."""
    if "regarding" not in event:
        return event
    return {
        **event,
        "involvedObject": event["regarding"],
        "message": event.get("note", ""),
        "reportingComponent": event.get("reportingController", ""),
        "source": event.get("deprecatedSource", {}),
        "count": event.get("deprecatedCount"),
    }


def _title(body: dict[str, Any]) -> str:
    if is_gap(body):
        return "a gap"
    about = body.get("involvedObject") or {}
    where = (body.get("metadata") or {}).get("namespace") or about.get("namespace") or ""
    name = f"{about.get('kind', '')}/{about.get('name', '')}"
    return f"{body.get('type', '')} {body.get('reason', '')} about {name}{f' in {where}' if where else ''}"


def _answers(router: Router, body: dict[str, Any]) -> Iterator[str]:
    if is_gap(body):
        yield "  a gap goes to every sink that a route names"
        return
    for number, answer in enumerate(router.explain(body), 1):
        yield f"  route {number}{f' ({answer.route.id})' if answer.route.id else ''}{_verdict(answer)}"


def _verdict(answer: Answer) -> str:
    if answer.matched is None:
        return " is not evaluated, because an earlier one stops"
    reasons = "; ".join(answer.reasons)
    if not answer.matched:
        return f" does not match: {reasons}"
    to = ", ".join(answer.route.sinks) or "nowhere"
    return f" matches and goes to {to}{', and stops' if answer.route.stop else ''}: {reasons}"
