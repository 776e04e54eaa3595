"""An operator that records from every place in kopf. The environment selects its login and silences kopf."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any

import kopf

import kevents
import kevents.kopf
from kevents.log_handler import EventLogHandler

NOTES = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "notes", "namespace": os.environ["NAMESPACE"]}}
WIDGETS = ("example.com", "v1", "widgets")

recorder = kevents.kopf.install(
    "everywhere",
    broadcaster=kevents.EventBroadcaster(correlator_options=kevents.CorrelatorOptions(burst_size=None)),
    silence_kopf="SILENCE_KOPF" in os.environ,
)
logging.getLogger("kopf.objects").addHandler(EventLogHandler(recorder, reason="Logged"))
recorder.info(NOTES, "AtImport", "before anything")

if "OWN_LOGIN" in os.environ:

    @kopf.on.login()
    def login(**kwargs: Any) -> Any:
        """Log in without the official client."""
        return recorder.logged_in(kopf.login_with_kubeconfig(**kwargs))


@kopf.on.startup()
async def startup(**_: Any) -> None:
    """Record before login."""
    recorder.info(NOTES, "AtStartup", "before login")

    @kopf.on.cleanup()
    def latest(**_: Any) -> None:
        """Record in a hook that is registered after the recorder's own."""
        recorder.info(NOTES, "AfterDrain", "after everything")


@kopf.on.create(*WIDGETS, id="sync")
def create(body: kopf.Body, logger: Any, **_: Any) -> None:
    """Record in one of kopf's threads, and in a thread of its own."""
    recorder.info(body, "SyncHandler", "in a thread of kopf's")
    thread = threading.Thread(target=recorder.warn, args=(body, "BareThread", "in a thread of its own"))
    thread.start()
    thread.join()
    logger.warning("seen by %s", "its logger")
    logger.info("not worth an event")
    kopf.info(body, reason="FromKopf", message="kopf's own")


@kopf.on.create(*WIDGETS, id="async")
async def create_async(body: kopf.Body, **_: Any) -> None:
    """Record in kopf's event loop, about several objects."""
    recorder.event([body, NOTES], "Normal", "AsyncHandler", "about both")


@kopf.on.create(*WIDGETS, id="failing", retries=30, backoff=0.001)
def failing(body: kopf.Body, retry: int, **_: Any) -> None:
    """Fail thirty times; kopf retries the handler."""
    try:
        open_bucket()
    except ConnectionError as error:
        recorder.exception(body, "Failed")
        raise kopf.TemporaryError("again", delay=0.001) from error


def open_bucket() -> None:
    """Fail."""
    raise ConnectionError("the bucket is gone")


@kopf.daemon(*WIDGETS, cancellation_timeout=10)
def daemon(body: kopf.Body, stopped: kopf.DaemonStopped, **_: Any) -> None:
    """Run until the end."""
    recorder.info(body, "SyncDaemon", "began")
    stopped.wait()
    recorder.info(body, "SyncDaemonEnded", "ended")


@kopf.daemon(*WIDGETS, cancellation_timeout=10)
async def async_daemon(body: kopf.Body, stopped: kopf.DaemonStopped, **_: Any) -> None:
    """Run until the end, in the event loop."""
    recorder.info(body, "AsyncDaemon", "began")
    await stopped.wait()
    recorder.info(body, "AsyncDaemonEnded", "ended")


@kopf.timer(*WIDGETS, interval=3600)
def timer(body: kopf.Body, **_: Any) -> None:
    """Record once."""
    recorder.info(body, "Timer", "ticked")


@kopf.on.cleanup()
def cleanup(**_: Any) -> None:
    """Registered after ``install``; says, too, whether the process-wide configuration was ever loaded."""
    client: Any = sys.modules.get("kubernetes.client")
    host = client.Configuration.get_default_copy().host if client else ""
    recorder.info(NOTES, "AtCleanup", "unset" if host in ("", "http://localhost", "https://localhost") else "loaded")
