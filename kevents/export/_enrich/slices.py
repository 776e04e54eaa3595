"""The thread that lists and watches EndpointSlices, for as long as services are wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from time import monotonic
from typing import Any, Final
from urllib.parse import quote

import msgspec
from tenacity import RetryCallState, Retrying, wait_random_exponential

from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.exceptions import UnavailableError
from kevents.export._enrich.services import ServiceIndex
from kevents.export._source.requests import JSON, ApiReader, Watch

PATH: Final = "/apis/discovery.k8s.io/v1/endpointslices"
RULE: Final = 'apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["list", "watch"]'

_PAGE = 500
_WATCH = "?watch=1&allowWatchBookmarks=true&timeoutSeconds=240"
_SILENCE = 300.0
_TIMEOUT = 30.0
_AT_ONCE = 1.0


class SliceWatch:
    """Keeps an index up to date.

    Args:
        reader: What makes the requests.
        index: What is kept; nobody else changes it.
        count: Told the verb of each request.
        log: For what has to be told.
    """

    def __init__(self, reader: ApiReader, index: ServiceIndex, count: Callable[[str], None], log: LimitedLog) -> None:
        """Prepare; nothing starts yet."""
        self._reader = reader
        self._index = index
        self._count = count
        self._log = log
        self._stopped = threading.Event()
        self._lock = threading.Lock()  # guards the watch that is open
        self._open: Watch | None = None
        self._thread = threading.Thread(target=self._run, name="kevents-services", daemon=True)
        self._wait = wait_random_exponential(multiplier=0.5, max=60)
        self._attempts = RetryCallState(Retrying(), None, (), {})

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """End the thread, also in the middle of a watch."""
        self._stopped.set()
        with self._lock:
            if self._open is not None:
                self._open.close()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._follow(self._list())
            except Exception as error:  # noqa: BLE001 - whatever the server sends, the thread goes on
                self._pause(error)

    def _pause(self, error: Exception) -> None:
        if self._stopped.is_set():
            return
        self._log.log_limited(
            "services", f"the services of pods are not up to date, trying again: {format_error(error)}"
        )
        self._rest()

    def _rest(self) -> None:
        """Wait before another attempt: longer each time, until a watch says something."""
        self._attempts.attempt_number += 1
        self._stopped.wait(self._wait(self._attempts))

    def _list(self) -> str:
        """List all slices; the resourceVersion to watch from."""
        rv = ""

        def slices() -> Iterator[Mapping[str, Any]]:  # page by page: of a large cluster all would be too much at once
            nonlocal rv
            token = None
            while token != "":
                page = self._page(token or "")
                metadata = page.get("metadata") or {}
                token, rv = metadata.get("continue") or "", str(metadata.get("resourceVersion", ""))
                yield from page.get("items") or []

        self._index.replace(slices(), monotonic())
        return rv

    def _page(self, token: str) -> dict[str, Any]:
        self._count("list")
        more = f"&continue={quote(token, safe='')}" if token else ""
        answer = self._reader.get(f"{PATH}?limit={_PAGE}{more}", JSON, _TIMEOUT)
        if answer.status == HTTPStatus.FORBIDDEN:
            raise UnavailableError(f"the server says 403; allow {RULE}")
        if answer.status != HTTPStatus.OK:
            raise UnavailableError(f"a list was answered with {answer.status}")
        page: dict[str, Any] = msgspec.json.decode(answer.body, type=dict)
        return page

    def _follow(self, rv: str) -> None:
        """Watch until the server has forgotten where we are, which it may say by an end at once, too."""
        while not self._stopped.is_set():
            began = monotonic()
            self._count("watch")
            since = f"&resourceVersion={quote(rv, safe='')}"
            watch = self._reader.watch(f"{PATH}{_WATCH}{since}", _SILENCE)
            with self._lock:
                self._open = watch
                if self._stopped.is_set():  # it was told to end while it opened the watch
                    watch.close()
            try:
                after = self._read(watch, rv)
            finally:
                with self._lock:
                    self._open = None
            if after is None or (after == rv and monotonic() - began < _AT_ONCE):
                self._rest()
                return
            rv = after

    def _read(self, watch: Watch, rv: str) -> str | None:
        """Take in what a watch says until it ends; where it stands then, None if it has to be begun anew."""
        for event in self._events(watch):
            each = event.get("object") or {}
            kind = str(event.get("type", ""))
            if kind == "ERROR":
                if each.get("code") != HTTPStatus.GONE:
                    raise UnavailableError(f"a watch said {each.get('code')} {each.get('message')}")
                return None
            self._attempts.attempt_number = 1
            self._index.apply(kind, each, monotonic())
            rv = str((each.get("metadata") or {}).get("resourceVersion") or rv)
        return rv

    def _events(self, watch: Watch) -> Iterator[dict[str, Any]]:
        for line in watch.lines():
            if self._stopped.is_set():
                return
            if line:
                yield msgspec.json.decode(line, type=dict)
