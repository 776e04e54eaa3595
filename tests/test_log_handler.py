"""Log records that name an object become events; other records are ignored."""

from __future__ import annotations

import logging
import logging.config
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kevents
from kevents.log_handler import EventLogHandler
from kevents.testing import APIServer, FakeEventsV1Recorder, FakeSink
from tests.support.sinks import PATIENCE, pod

Seen = list[kevents.Event]


class Hostile:
    """Raises when it is formatted."""

    def __str__(self) -> str:
        """Raise."""
        raise ValueError("no text")


@pytest.fixture
def broadcaster() -> Iterator[kevents.EventBroadcaster]:
    """A broadcaster that is shut down after the test."""
    with kevents.EventBroadcaster() as broadcaster:
        yield broadcaster


@pytest.fixture
def seen(broadcaster: kevents.EventBroadcaster) -> Seen:
    """The recorded events."""
    found: Seen = []
    broadcaster.start_event_watcher(found.append)
    return found


@pytest.fixture
def log(broadcaster: kevents.EventBroadcaster) -> Iterator[logging.Logger]:
    """A logger with a handler for the level ``INFO`` and above."""
    handler = EventLogHandler(broadcaster.new_recorder("operator"), logging.INFO)
    logger = logging.getLogger("tests.log_handler")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.removeHandler(handler)


def recorded(broadcaster: kevents.EventBroadcaster, seen: Seen) -> list[tuple[str, str, str, str]]:
    """Name, type, reason and message of each event so far."""
    assert broadcaster.flush(PATIENCE)
    return [(event.reference.name, event.type, event.reason, event.message) for event in seen]


def about(**more: object) -> dict[str, Any]:
    """The arguments of a log call about a pod."""
    return {"extra": {"k8s_object": pod(), **more}}


def refuse() -> None:
    """Raise an error as a handler of an operator might."""
    raise ConnectionError("refused")


def test_records_about_an_object(log: logging.Logger, broadcaster: kevents.EventBroadcaster, seen: Seen) -> None:
    """Levels become the two types. The reason is the record's own or the handler's. An exception is one line."""
    log.info("fine: %d%%", 100, **about())
    log.warning("the bucket is gone", **about(reason="BackupFailed"))
    log.debug("below the level", **about())
    log.warning("about no object")
    try:
        refuse()
    except ConnectionError:
        log.exception("failed:", **about(reason="BackupFailed"))
    assert recorded(broadcaster, seen) == [
        ("web-0", "Normal", "Logging", "fine: 100%"),
        ("web-0", "Warning", "BackupFailed", "the bucket is gone"),
        ("web-0", "Warning", "BackupFailed", "failed: ConnectionError: refused"),
    ]


def test_records_of_kopf(log: logging.Logger, broadcaster: kevents.EventBroadcaster, seen: Seen) -> None:
    """Kopf's object loggers name the object in ``k8s_ref``; records that kopf marks with ``k8s_skip`` are left out."""
    reference = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "namespace": None}
    log.warning("odd", extra={"k8s_ref": reference, "k8s_skip": False})
    log.warning("not for events", extra={"k8s_ref": reference, "k8s_skip": True})
    assert recorded(broadcaster, seen) == [("n", "Warning", "Logging", "odd")]


def test_no_loop(broadcaster: kevents.EventBroadcaster, seen: Seen) -> None:
    """Log lines of kevents about events never become events, even with the handler on the root logger."""
    handler, root = EventLogHandler(broadcaster.new_recorder("operator")), logging.getLogger()
    broadcaster.start_structured_logging(logging.WARNING)
    root.addHandler(handler)
    try:
        logging.getLogger("kevents.events").warning("Event occurred", **about())
        logging.getLogger("kevents").error("dropped an event", **about())
        logging.getLogger("backup").warning("the bucket is gone", **about())
        found = recorded(broadcaster, seen)
    finally:
        root.removeHandler(handler)
    assert found == [("web-0", "Warning", "Logging", "the bucket is gone")]


def test_the_only_handler_of_a_program(tmp_path: Path) -> None:
    """A dropped event is reported on standard error also if the program has no other handler."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import logging
            from kevents.log_handler import EventLogHandler

            logging.getLogger().addHandler(EventLogHandler("backup-operator"))
            logging.warning("the bucket is gone", extra={"k8s_object": "web-0"})
            """
        ),
        encoding="utf-8",
    )
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "none"), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True, check=True)
    [configuration, dropped] = done.stderr.splitlines()
    assert configuration.startswith("no Kubernetes configuration")
    assert dropped.startswith("dropped an event about ?/?  (reason Logging), invalid_reference: ")


def test_a_record_that_cannot_be_formatted(log: logging.Logger, broadcaster: kevents.EventBroadcaster) -> None:
    """A record that cannot be formatted is a refused event, and raises nothing into the caller."""
    [handler] = [handler for handler in log.handlers if isinstance(handler, EventLogHandler)]
    for text, value in (("%d", "no number"), ("%s", Hostile())):
        handler.handle(log.makeRecord("x", logging.WARNING, "x.py", 1, text, (value,), None, **about()))
    assert broadcaster.statistics().refused == {kevents.DropReason.INVALID_MESSAGE: 2}


def test_a_strict_recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception of a strict recorder is handled as any error in a log handler."""
    failed: list[logging.LogRecord] = []
    monkeypatch.setattr(EventLogHandler, "handleError", lambda self, record: failed.append(record))
    with kevents.EventBroadcaster(strict=True) as broadcaster:
        handler = EventLogHandler(broadcaster.new_recorder("operator"))
        record = logging.makeLogRecord({"levelno": logging.ERROR, "msg": "m", "k8s_object": {"kind": "Pod"}})
        handler.handle(record)
    assert failed == [record]


def test_structlog(log: logging.Logger, broadcaster: kevents.EventBroadcaster, seen: Seen) -> None:
    """A structlog logger over the standard library passes object and reason as keyword arguments."""
    structlog = pytest.importorskip("structlog")
    bound = structlog.wrap_logger(
        log, wrapper_class=structlog.stdlib.BoundLogger, processors=[structlog.stdlib.render_to_log_kwargs]
    )
    bound.warning("the bucket is gone", k8s_object=pod(), reason="BackupFailed")
    assert recorded(broadcaster, seen) == [("web-0", "Warning", "BackupFailed", "the bucket is gone")]


def test_name_of_a_component(api_server: APIServer, monkeypatch: pytest.MonkeyPatch, log: logging.Logger) -> None:
    """A name stands for the recorder of ``get_recorder``, so that a configuration of ``logging`` can hold it."""
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig()))
    api_server.create_namespace("prod")
    handler = {"class": "kevents.log_handler.EventLogHandler", "recorder": "backup-operator", "level": "WARNING"}
    loggers = {"tests.configured": {"handlers": ["events"], "propagate": False}}
    configuration = {"version": 1, "disable_existing_loggers": False}
    logging.config.dictConfig({**configuration, "handlers": {"events": handler}, "loggers": loggers})
    try:
        logging.getLogger("tests.configured").warning("the bucket is gone", **about(reason="BackupFailed"))
    finally:
        logging.getLogger("tests.configured").handlers.clear()
        assert kevents.shutdown(PATIENCE) == 0
    [event] = api_server.events()
    assert (event["reason"], event["source"]["component"]) == ("BackupFailed", "backup-operator")


@pytest.mark.parametrize(
    "recorder",
    [None, 3, kevents.EventBroadcaster(), kevents.EventBroadcaster().new_recorder("c").for_object(pod())],
    ids=["None", "number", "broadcaster", "bound"],
)
def test_no_recorder(recorder: Any) -> None:
    """Anything but a recorder is refused when the handler is made, not with each record."""
    with pytest.raises(TypeError, match=r"^recorder must be a recorder or a component's name, not "):
        EventLogHandler(recorder)


def test_recorder_of_events_v1() -> None:
    """The recorder of events.k8s.io/v1 takes log records too."""
    recorder = FakeEventsV1Recorder()
    logger = logging.getLogger("tests.events_v1")
    handler = EventLogHandler(recorder)
    logger.addHandler(handler)
    logger.warning("the bucket is gone", **about(reason="BackupFailed"))
    logger.removeHandler(handler)
    [event] = recorder.events
    assert (event.type, event.reason, event.message) == ("Warning", "BackupFailed", "the bucket is gone")


def test_delivered_to_a_sink(log: logging.Logger, broadcaster: kevents.EventBroadcaster) -> None:
    """Events from log records are delivered to the API server."""
    sink = FakeSink()
    broadcaster.start_recording_to_sink(sink)
    log.error("the bucket is gone", **about())
    assert broadcaster.flush(PATIENCE)
    [event] = sink.events()
    assert (event["reason"], event["source"]["component"]) == ("Logging", "operator")
