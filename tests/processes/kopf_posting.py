"""An operator with kopf's own posting limited by ``settings.posting``: the recorder is not concerned."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

import kopf

import kevents.kopf

recorder = kevents.kopf.install("posting")


@kopf.on.startup()
def startup(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Take the settings of the environment."""
    given = json.loads(os.environ["POSTING"])
    settings.posting.enabled, settings.posting.loggers = given["enabled"], given["loggers"]
    settings.posting.level = getattr(logging, given["level"])


@kopf.on.create("example.com", "v1", "widgets")
def create(body: kopf.Body, logger: Any, **_: Any) -> None:
    """Post with kopf, and record the same."""
    for post in (kopf, recorder):
        suffix = "ByKopf" if post is kopf else ""
        post.event(body, type="Normal", reason=f"Event{suffix}", message="m")
        post.info(body, reason=f"Info{suffix}", message="m")
        post.exception(body, reason=f"Exception{suffix}", message="m", exc=ConnectionError("refused"))
    logger.error("a log line")
    recorder.info(body, "Last", "m")
