"""The object store sink: one object for each batch. The newest key holds the position; no object is written twice.

The key below the URL's prefix is `{cluster}/{scope}/dt={date}/{first}-{last}.jsonl.gz`: `first` is the resourceVersion
of the first record, `last` that of the batch's position, `date` its day in UTC. An object is created only if the name
is free (`If-None-Match: *`), completely or not at all, so a request without an answer can be repeated safely. A batch
without records replaces `{cluster}/{scope}/position.json`, the only object that is ever replaced.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from kevents._model.validation import how_to_install, require_positive
from kevents._model.wire import format_error, parse_time
from kevents.export._model.position import SegmentName, folder_of, segment_name
from kevents.export._model.types import Batch, Position, Retry, Stream, day_folder
from kevents.export._sinks.http import Redactor
from kevents.export._sinks.segments import (
    LONGEST_HEADER,
    BatchHeader,
    format_of,
    header_of,
    is_position_line,
    order_of,
    unwritten,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Options: TypeAlias = Mapping[str, str | bool]
GetOptions: TypeAlias = Callable[[], Options]

_LOGGER: Final = logging.getLogger("kevents.export")
_POSITION: Final = "position.json"
_NEWEST_DAYS: Final = 3
_MOST_COMPARED: Final = 256 << 20
_CLOUDS: Final = frozenset({"s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"})
_ENDPOINTS: Final = ("endpoint", "aws_endpoint", "azure_storage_endpoint", "base_url")
_CONNECTION: Final = re.compile(
    "allow_http|allow_invalid_certificates|connect_timeout|default_content_type|http1_only|http2_only|pool_idle_timeout"
    "|pool_max_idle_per_host|proxy_.*|randomize_addresses|timeout|user_agent"
)
_SECRET: Final = re.compile(r"key|secret|token|password|sas|credential|service_account|signature", re.IGNORECASE)
_ANSWER: Final = re.compile(r"<Code>([^<]*)</Code>.*?<Message>([^<]*)</Message>", re.DOTALL)


class ObjectStoreSink:
    """Writes each batch as an object of JSON lines to S3, Google Cloud Storage, Azure or a folder.

    Args:
        url: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `file:///folder`, or a store of
            obstore.
        options: Options of obstore for this store: `region`, `endpoint`, `access_key_id`, `account_name`,
            `service_account`, ...; or a function that returns them, called again after a failure. Missing options are
            taken from the environment.
        timeout: Seconds for a request.
        compress: ``gzip`` or ``none``.
        level: The level of compression, 1 to 9.

    Raises:
        ValueError: If the URL or an option is wrong.
        ImportError: If obstore is missing.
    """

    def __init__(
        self,
        url: str | ObjectStore,
        *,
        options: Options | GetOptions | None = None,
        timeout: float = 30.0,
        compress: Literal["gzip", "none"] = "gzip",
        level: int = 6,
    ) -> None:
        self._form = format_of(compress, level)
        self._store = Store(url, options, timeout)
        self._headers: dict[Stream, BatchHeader | None] = {}  # of the last batch in the store

    def write(self, batch: Batch) -> None:
        """Create the batch's object; records that the bucket has already are left out.

        Raises:
            Retry: If the store does not answer, or refuses: a bucket may be created, credentials renewed.
            ValueError: If the stream's names cannot be made a key.
        """
        stream = batch.position.stream
        last = self._last(stream)
        new = unwritten(batch, last.position if last else None)
        if new is None:
            return
        header = BatchHeader.of(new)
        if new.records:
            self._create(header, new)
        else:
            self._put(f"{folder_of(stream)}/{_POSITION}", header.to_json(), "overwrite")
        self._headers[stream] = header

    def last_position(self, stream: Stream) -> Position | None:
        """Return the position that the bucket has stored; asked once, then remembered.

        Raises:
            Retry: If the store does not answer, or refuses.
        """
        last = self._last(stream)
        return last.position if last else None

    def close(self) -> None:
        """Forget the positions."""
        self._headers.clear()

    def __repr__(self) -> str:
        """Show the URL, without options."""
        return f"{type(self).__name__}({str(self._store)!r})"

    # -- writing

    def _create(self, header: BatchHeader, new: Batch) -> None:
        name = SegmentName(header.position.rv, header.first).file(self._form.suffix)
        key = f"{folder_of(header.position.stream)}/{day_folder(header.position.time)}/{name}"
        data = self._form.encode((record.line() for record in new.records), header)
        if not self._put(key, data, "create"):
            self._compare(key, data, [record.id for record in new.records])

    def _put(self, key: str, data: bytes, mode: str) -> bool:
        """Write an object; False if the name is taken."""
        obstore = load_obstore()
        try:
            obstore.put(self._store.opened(), key, data, mode=mode, use_multipart=False)
        except obstore.exceptions.AlreadyExistsError:
            return False
        except store_errors() as error:
            raise self._store.retry(f"write {key} to", error) from None
        return True

    def _compare(self, key: str, data: bytes, ids: Sequence[str]) -> None:
        """Check that the existing object is this batch, written by a request whose answer was lost."""
        found = self._read(key, _MOST_COMPARED)
        if found is None:
            raise Retry(f"{self._store} reports that {key} exists, but does not return it")
        if found == data or set(ids) <= set(_ids(found)):
            return
        raise Retry(
            f"{key} in {self._store} exists with other records: another exporter writes to the same place; "
            "give each exporter its own prefix"
        )

    # -- finding the position

    def _last(self, stream: Stream) -> BatchHeader | None:
        if stream not in self._headers:
            self._headers[stream] = max(self._newest_object(stream), self._position_object(stream), key=order_of)
        return self._headers[stream]

    def _newest_object(self, stream: Stream) -> BatchHeader | None:
        newest = max(self._objects(folder_of(stream)), default=None, key=lambda found: found[0])
        if newest is None:
            return None
        name, key, modified = newest
        found = header_of(self._read(key, LONGEST_HEADER) or b"")
        if found is not None and found.header.position.rv == name.last:
            return found.header
        return BatchHeader(Position(stream, name.last, modified), name.first, 0)

    def _objects(self, place: str) -> Iterator[tuple[SegmentName, str, int]]:
        """Yield the objects of the newest days: more than one, because the clock may have gone back."""
        obstore = load_obstore()
        try:
            store = self._store.opened()
            days = sorted(obstore.list_with_delimiter(store, place)["common_prefixes"])
            for day in [day for day in days if day.rpartition("/")[2].startswith("dt=")][-_NEWEST_DAYS:]:
                for page in obstore.list(store, day, chunk_size=1000):
                    for found in page:
                        name = segment_name(found["path"].rpartition("/")[2])
                        if name is not None:
                            yield name, found["path"], parse_time(found["last_modified"])
        except store_errors() as error:
            raise self._store.retry("list", error) from None

    def _position_object(self, stream: Stream) -> BatchHeader | None:
        key = f"{folder_of(stream)}/{_POSITION}"
        data = self._read(key, LONGEST_HEADER)
        try:
            return None if data is None else BatchHeader.from_json(json.loads(data))
        except ValueError as error:
            _LOGGER.warning(
                "%s in %s cannot be read (%s): the newest object decides the position", key, self._store, error
            )
            return None

    def _read(self, key: str, most: int) -> bytes | None:
        """Return the first bytes of an object, `most` at most; None if there is none."""
        obstore = load_obstore()
        try:
            store = self._store.opened()
            size = min(obstore.head(store, key)["size"], most)
            return bytes(obstore.get_range(store, key, start=0, end=size)) if size else b""
        except FileNotFoundError:
            return None
        except store_errors() as error:
            raise self._store.retry(f"read {key} from", error) from None


def _ids(data: bytes) -> list[str]:
    """Return the ids of an object's records; none if it is not JSON lines."""
    try:
        if data.startswith(b"\x1f\x8b"):
            data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, _MOST_COMPARED)
        return [str(json.loads(line)["kevents"]["id"]) for line in data.split(b"\n")[:-1] if not is_position_line(line)]
    except (zlib.error, ValueError, KeyError, TypeError):
        return []


class Store:
    """An object store that is opened at first use, and again after a failure, with the options as they are then.

    Raises ValueError if the URL or an option is wrong, and ImportError if obstore is missing.
    """

    def __init__(self, url: str | ObjectStore, options: Options | GetOptions | None, timeout: float) -> None:
        obstore = load_obstore()
        self._timeout = require_positive("timeout", timeout)  # seconds for a request
        self._options: GetOptions = options if callable(options) else lambda: options or {}
        self._redacted = Redactor(())
        self._url = url if isinstance(url, str) else ""  # as for :class:`ObjectStoreSink`; also `memory:///`, for tests
        self._given = None if isinstance(url, str) else url
        if self._url == "memory:///":
            self._given = obstore.store.MemoryStore()
        self._store: Any = None
        if self._given is None:
            _check_url(self._url)
        if not callable(options):
            self.opened()

    def opened(self) -> Any:  # noqa: ANN401 - any store of obstore
        """Return the store. Raises ValueError if an option is wrong."""
        if self._given is not None:
            return self._given
        if self._store is None:
            try:
                options = dict(self._options())
            except Exception as error:  # noqa: BLE001 - the user's function, whose secret may not exist yet
                raise ValueError(f"cannot get the options of {self}: {format_error(error)}") from None
            self._redacted = Redactor(str(value) for key, value in options.items() if _SECRET.search(key))
            self._store = self._open(options)
        return self._store

    def _open(self, options: dict[str, str | bool]) -> Any:  # noqa: ANN401
        obstore = load_obstore()
        _refuse_connection(options)
        try:
            if urlsplit(self._url).scheme == "file":
                return obstore.store.from_url(self._url, mkdir=True)
            plain = any(str(options.get(key, "")).startswith("http://") for key in _ENDPOINTS)
            seconds = timedelta(seconds=self._timeout)
            return obstore.store.from_url(
                self._url,
                config=options,
                client_options={
                    "timeout": seconds,
                    "connect_timeout": min(seconds, timedelta(seconds=5)),
                    "allow_http": plain or os.environ.get(self._allow_http(), "").lower() in ("1", "true"),
                },
                retry_config={"max_retries": 0},  # the export retries by itself
            )
        except (obstore.exceptions.BaseError, OSError, ValueError, TypeError) as error:
            raise ValueError(f"cannot open {self}: {self.format_error(error)}") from None

    def retry(self, doing: str, error: Exception) -> Retry:
        """Return the :class:`Retry` for an error of obstore. The store is opened again: credentials may be renewed."""
        self._store = None
        return Retry(f"cannot {doing} {self}: {self.format_error(error)}")

    def format_error(self, error: Exception) -> str:
        """Return an error as one line without secrets, with the store's own words if it answered."""
        text = str(error).partition("\n\nDebug source:")[0]
        if isinstance(error, FileNotFoundError) and "404" in text and "<Code>" not in text:
            text = "the object or the bucket does not exist"
        answer = _ANSWER.search(text)
        if answer:
            hint = "; create it, and the export continues by itself" if answer[1] == "NoSuchBucket" else ""
            text = f"{answer[1]}: {answer[2]}{hint}"
        if "builder error" in text and "http://" in text:
            text = f"the endpoint in the environment uses http: set {self._allow_http()}=true to allow it, or use https"
        return self._redacted(text)

    def _allow_http(self) -> str:
        """The variable that allows http, which obstore's stores know but its options for connections override."""
        return "AZURE_ALLOW_HTTP" if self._url.startswith("az") else "AWS_ALLOW_HTTP"

    def __str__(self) -> str:
        return self._url or type(self._given).__name__


def check_options(url: str, options: Options) -> None:
    """Raise ValueError if a store does not know one of these options. Their values are checked at the first request."""
    obstore = load_obstore()
    if urlsplit(url).scheme not in _CLOUDS:
        return
    _refuse_connection(options)
    try:
        obstore.store.from_url(url, config=options)
    except obstore.exceptions.UnknownConfigurationKeyError as error:
        raise ValueError(f"options: {str(error).splitlines()[0]}") from None
    except obstore.exceptions.BaseError:
        return


def _refuse_connection(options: Options) -> None:
    """Refuse options of the connection: obstore panics on them."""
    if wrong := sorted(filter(_CONNECTION.fullmatch, options)):
        raise ValueError(f"options: {wrong[0]} is an option of the connection, which kevents sets itself: remove it")


def load_obstore() -> Any:  # noqa: ANN401 - an optional package; its overloads differ by version
    """Import obstore. Raises ImportError with the command that installs it."""
    try:
        import obstore.exceptions  # noqa: PLC0415
        import obstore.store  # noqa: PLC0415
    except ImportError as missing:
        raise ImportError(f"an object store needs obstore: {how_to_install('export')} ({missing})") from missing
    return obstore


def store_errors() -> tuple[type[Exception], ...]:
    """Return the errors that obstore raises when a request fails."""
    return load_obstore().exceptions.BaseError, OSError, NotImplementedError, ValueError


def _check_url(url: str) -> None:
    parts: Any = urlsplit(url)
    if parts.scheme not in _CLOUDS | {"file"}:
        raise ValueError(f"not an object store: {Redactor(())(url)!r}; use s3://, gs://, az://, file:/// or memory:///")
    if parts.scheme in _CLOUDS and not parts.netloc:
        raise ValueError(f"{url!r} names no bucket: {parts.scheme}://bucket/prefix")
    user = parts.username and not parts.scheme.startswith("abfs")  # abfss://container@account.dfs.core.windows.net/
    if user or parts.password or parts.query or parts.fragment:
        raise ValueError(f"{Redactor(())(url)!r}: credentials and options do not belong in the URL")
    names = unquote(parts.path).strip("/").split("/")
    if any(name in {".", ".."} or (not name and len(names) > 1) for name in names) or "\\" in parts.path:
        raise ValueError(f"{url!r}: a prefix consists of names, without '.', '..' or empty parts")
