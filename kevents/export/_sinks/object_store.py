"""Objects in a bucket, one for each batch: the newest key is the position, and no object is ever written twice.

`{cluster}/{scope}/dt={date}/{first}-{last}.jsonl.gz` below the URL's prefix: `first` is the resourceVersion of the
first record, `last` that of the batch's position, `date` the UTC day when it was read. An object is created only if
there is none of that name (`If-None-Match: *`), whole or not at all; so a request whose answer was lost is asked again
without harm. A batch without records moves the position in `{cluster}/{scope}/position.json`, the only object that is
ever replaced.
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from kevents._model.validation import require_positive
from kevents._model.wire import format_error
from kevents.export._model.position import SegmentName, folder_of, segment_name
from kevents.export._model.types import Batch, Position, Retry, Stream
from kevents.export._sinks.redact import Redactor
from kevents.export._sinks.segments import (
    BatchHeader,
    Unwritten,
    format_of,
    held_from_json,
    held_in_header,
    held_in_line,
    is_position_line,
    news,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore


_LOGGER: Final = logging.getLogger("kevents.export")
_POSITION: Final = "position.json"
_DATES: Final = 3
_HEAD: Final = 4096
_MOST_COMPARED: Final = 256 << 20


class ObjectStoreSink:
    """Writes each batch as an object of JSON lines to S3, Google Cloud Storage, Azure or a folder.

    Args:
        url: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `file:///folder`, or a store of
            obstore's.
        options: What obstore takes for such a store: `region`, `endpoint`, `access_key_id`, `account_name`,
            `service_account`, ...; or a function that gives them, asked again after a failure. What is missing is
            looked for in the environment.
        timeout: Seconds for a request.
        compress: ``gzip`` or ``none``.
        level: Of compression, 1 to 9.

    Raises:
        ValueError: If the URL or an option is none.
        ImportError: If obstore is missing.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        url: str | ObjectStore,
        *,
        options: Options | GiveOptions | None = None,
        timeout: float = 30.0,
        compress: Literal["gzip", "none"] = "gzip",
        level: int = 6,
    ) -> None:
        """Check what was given; connect to nothing."""
        self._form = format_of(compress, level)
        self._store = Store(url, options, timeout)
        self._held: dict[Stream, BatchHeader | None] = {}

    def write(self, batch: Batch) -> None:
        """Create the batch's object; what the bucket holds already is left out.

        Raises:
            Retry: If the store does not answer, or refuses: a bucket may be made, credentials renewed.
            ValueError: If no key can be made of the stream's names.
        """
        stream = batch.position.stream
        held = self._last(stream)
        new = news(batch, held.position if held else None)
        if new is None:
            return
        next_held = BatchHeader(new.position, new.first, len(new.records))
        if new.records:
            self._create(next_held, new)
        else:
            self._put(f"{folder_of(stream)}/{_POSITION}", next_held.text(), "overwrite")
        self._held[stream] = next_held

    def last_position(self, stream: Stream) -> Position | None:
        """Give how far the bucket holds a stream; asked once, remembered then.

        Raises:
            Retry: If the store does not answer, or refuses.
        """
        held = self._last(stream)
        return held.position if held else None

    def close(self) -> None:
        """Forget what the bucket holds."""
        self._held.clear()

    def __repr__(self) -> str:
        """With the place, without options."""
        return f"{type(self).__name__}({str(self._store)!r})"

    # -- writing

    def _create(self, held: BatchHeader, new: Unwritten) -> None:
        name = SegmentName(held.position.rv, held.first).file(self._form.suffix)
        key = f"{folder_of(held.position.stream)}/dt={_date(held.position.time)}/{name}"
        data = self._form.encode((record.line() for record in new.records), held)
        if not self._put(key, data, "create"):
            self._compare(key, data, [record.id for record in new.records])

    def _put(self, key: str, data: bytes, mode: Any) -> bool:  # noqa: ANN401 - obstore's own words
        """Write an object whole; False if there is one of that name."""
        import obstore  # noqa: PLC0415 - an optional package

        try:
            obstore.put(self._store.opened(), key, data, mode=mode, use_multipart=False)
        except obstore.exceptions.AlreadyExistsError:
            return False
        except failures() as error:
            raise self._store.retry(f"write {key} to", error) from None
        return True

    def _compare(self, key: str, data: bytes, ids: Sequence[str]) -> None:
        """See whether the object of this name is this batch, written before its answer was lost."""
        found = self._read(key, _MOST_COMPARED)
        if found is None:
            raise Retry(f"{self._store} says that {key} is there, and then that it is not: perhaps in a moment")
        if found == data or set(ids) <= set(_ids(found)):
            return
        raise Retry(
            f"{key} in {self._store} is there with other records: another exporter writes to the same place; "
            "give each a prefix of its own"
        )

    # -- finding the position

    def _last(self, stream: Stream) -> BatchHeader | None:
        if stream not in self._held:
            found = [self._newest_object(stream), self._position_object(stream)]
            known = [held for held in found if held is not None]
            key = lambda held: (held.position.rv, held.position.time)  # noqa: E731
            self._held[stream] = max(known, key=key, default=None)
        return self._held[stream]

    def _newest_object(self, stream: Stream) -> BatchHeader | None:
        newest = max(self._objects(folder_of(stream)), default=None, key=lambda found: found[0])
        if newest is None:
            return None
        name, key, modified = newest
        held = self._says(key)
        if held is not None and held.position.rv == name.last:
            return held
        return BatchHeader(Position(stream, name.last, modified), name.first, 0)

    def _says(self, key: str) -> BatchHeader | None:
        if key.endswith(".gz"):
            return held_in_header(self._read(key, _HEAD) or b"")
        return held_in_line((self._read(key, -_HEAD) or b"").rstrip(b"\n").rpartition(b"\n")[2])

    def _objects(self, place: str) -> Iterator[tuple[SegmentName, str, int]]:
        """Give the newest days' objects: the clock may have gone back, so not of the last day only."""
        import obstore  # noqa: PLC0415 - an optional package

        try:
            store = self._store.opened()
            days = sorted(obstore.list_with_delimiter(store, place)["common_prefixes"])
            for day in [day for day in days if day.rpartition("/")[2].startswith("dt=")][-_DATES:]:
                for page in obstore.list(store, day, chunk_size=1000):
                    for found in page:
                        name = segment_name(found["path"].rpartition("/")[2])
                        if name is not None:
                            yield name, found["path"], _nanoseconds(found["last_modified"])
        except failures() as error:
            raise self._store.retry("list", error) from None

    def _position_object(self, stream: Stream) -> BatchHeader | None:
        key = f"{folder_of(stream)}/{_POSITION}"
        data = self._read(key, _HEAD)
        try:
            return None if data is None else held_from_json(json.loads(data))
        except ValueError as error:
            _LOGGER.warning(
                "%s in %s cannot be understood (%s): the newest object counts alone", key, self._store, error
            )
            return None

    def _read(self, key: str, most: int) -> bytes | None:
        """Give the first bytes of an object, or the last; None if there is none."""
        import obstore  # noqa: PLC0415 - an optional package

        try:
            store = self._store.opened()
            size = obstore.head(store, key)["size"]
            start, end = (0, min(size, most)) if most > 0 else (max(size + most, 0), size)
            return bytes(obstore.get_range(store, key, start=start, end=end)) if size else b""
        except FileNotFoundError:
            return None
        except failures() as error:
            raise self._store.retry(f"read {key} from", error) from None


def _ids(data: bytes) -> list[str]:
    """Give the ids of the records in an object; none if it is no JSON lines."""
    try:
        if data.startswith(b"\x1f\x8b"):
            data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, _MOST_COMPARED)
        return [str(json.loads(line)["kevents"]["id"]) for line in data.split(b"\n")[:-1] if not is_position_line(line)]
    except (zlib.error, ValueError, KeyError, TypeError):
        return []


def _date(nanoseconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=nanoseconds // 1_000_000_000)
    return moment.date().isoformat()


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000) * 1_000


Options: TypeAlias = Mapping[str, str | bool]
GiveOptions: TypeAlias = Callable[[], Options]

_MEMORY: Final = "memory:///"
_CLOUDS: Final = frozenset({"s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"})
_ENDPOINTS: Final = ("endpoint", "aws_endpoint", "azure_storage_endpoint", "base_url")
_CONNECTION: Final = frozenset(
    (
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "default_content_type",
        "http1_only",
        "http2_only",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_url",
        "proxy_ca_certificate",
        "proxy_excludes",
        "randomize_addresses",
        "timeout",
        "user_agent",
    )
)
_SECRET: Final = re.compile(r"key|secret|token|password|sas|credential|service_account|signature", re.IGNORECASE)
_ANSWER: Final = re.compile(r"<Code>([^<]*)</Code>.*?<Message>([^<]*)</Message>", re.DOTALL)


class Store:
    """An object store that opens itself at first use, and anew after trouble, with the options as they are then.

    Args:
        url: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `file:///folder`, `memory:///`
            for tests; or a store of obstore's, which is used as it is.
        options: What obstore takes for such a store (`region`, `endpoint`, `access_key_id`, ...), or a function that
            gives them, asked again after each failure, so that renewed credentials are found. What is not given comes
            from the environment, as the cloud's own tools have it.
        timeout: Seconds for a request.

    Raises:
        ValueError: If the URL or an option is none.
        ImportError: If obstore is missing.
    """

    def __init__(self, url: str | ObjectStore, options: Options | GiveOptions | None, timeout: float) -> None:
        """Check what was given; connect to nothing."""
        _needs_obstore()
        self._timeout = require_positive("timeout", timeout)
        self._options: GiveOptions = options if callable(options) else lambda: options or {}
        self._redacted = Redactor(())
        self._url = url if isinstance(url, str) else ""
        self._given = _memory() if self._url == _MEMORY else None if isinstance(url, str) else url
        self._store: ObjectStore | None = None
        if self._given is None:
            _check_url(self._url)
        if not callable(options):
            self.opened()

    def opened(self) -> ObjectStore:
        """Give the store.

        Raises:
            ValueError: If nothing can be made of the options.
        """
        if self._given is not None:
            return self._given
        if self._store is None:
            options = self._asked()
            self._redacted = Redactor(str(value) for key, value in options.items() if _SECRET.search(key))
            self._store = self._open(options)
        store: ObjectStore = self._store
        return store

    def _asked(self) -> dict[str, str | bool]:
        try:
            return dict(self._options())
        except Exception as error:  # noqa: BLE001 - the user's function, whose secret may not be there yet
            raise ValueError(f"cannot get the options of {self}: {format_error(error)}") from None

    def _open(self, options: dict[str, str | bool]) -> Any:  # noqa: ANN401 - obstore's overloads differ by version
        import obstore  # noqa: PLC0415 - an optional package
        import obstore.store  # noqa: PLC0415

        _refuse_connection(options)
        try:
            if self._scheme == "file":
                return obstore.store.from_url(self._url, mkdir=True)
            plain = any(str(options.get(key, "")).startswith("http://") for key in _ENDPOINTS)
            seconds = timedelta(seconds=self._timeout)
            config: Any = options  # each store has its own type of it
            return obstore.store.from_url(
                self._url,
                config=config,
                client_options={
                    "timeout": seconds,
                    "connect_timeout": min(seconds, timedelta(seconds=5)),
                    "allow_http": plain,
                },
                retry_config={"max_retries": 0},  # the export's own retries know when to give way
            )
        except (obstore.exceptions.BaseError, OSError, ValueError, TypeError) as error:
            raise ValueError(f"cannot open {self}: {self.format_error(error)}") from None

    def retry(self, doing: str, error: Exception) -> Retry:
        """Give an error as a sink tells it, and open anew next time: credentials may have been renewed.

        Args:
            doing: What was tried.
            error: What obstore raised.
        """
        self._store = None
        return Retry(f"cannot {doing} {self}: {self.format_error(error)}")

    def format_error(self, error: Exception) -> str:
        """Give an error as one line: what the store answered, if it did, without secrets."""
        text = str(error).partition("\n\nDebug source:")[0]
        if isinstance(error, FileNotFoundError) and "404" in text and "<Code>" not in text:
            text = "there is no such object, or no such bucket"
        answer = _ANSWER.search(text)
        if answer:
            hint = "; make it, and it goes on by itself" if answer[1] == "NoSuchBucket" else ""
            text = f"{answer[1]}: {answer[2]}{hint}"
        return self._redacted(text)

    @property
    def _scheme(self) -> str:
        return urlsplit(self._url).scheme

    def __str__(self) -> str:
        """The URL, or what kind of store it is."""
        return self._url or type(self._given).__name__


def check_options(url: str, options: Options) -> None:
    """See whether a store has such options; what their values are worth shows when it is asked for something.

    Raises:
        ValueError: If it does not have one.
        ImportError: If obstore is missing.
    """
    _needs_obstore()
    import obstore.store  # noqa: PLC0415 - an optional package

    if urlsplit(url).scheme not in _CLOUDS:
        return
    _refuse_connection(options)
    names: Any = options  # each store has its own type of it
    try:
        obstore.store.from_url(url, config=names)
    except obstore.exceptions.UnknownConfigurationKeyError as error:
        raise ValueError(f"options: {str(error).splitlines()[0]}") from None
    except obstore.exceptions.BaseError:
        return


def _refuse_connection(options: Options) -> None:
    """Refuse what obstore cannot take there, which is where it panics."""
    if wrong := sorted(_CONNECTION & options.keys()):
        raise ValueError(f"options: {wrong[0]} is one of the connection, which kevents makes itself: leave it out")


def failures() -> tuple[type[Exception], ...]:
    """Give what obstore raises when a request fails."""
    import obstore.exceptions  # noqa: PLC0415 - an optional package

    return obstore.exceptions.BaseError, OSError, NotImplementedError, ValueError


def _memory() -> ObjectStore:
    from obstore.store import MemoryStore  # noqa: PLC0415 - an optional package

    return MemoryStore()


def _needs_obstore() -> None:
    try:
        import obstore  # noqa: F401, PLC0415 - an optional package
    except ImportError as missing:
        raise ImportError(f"an object store needs obstore: pip install 'kevents[export]' ({missing})") from missing


def _check_url(url: str) -> None:
    parts: Any = urlsplit(url)
    if parts.scheme not in _CLOUDS | {"file"}:
        raise ValueError(f"no object store: {Redactor(())(url)!r}; one is s3://, gs://, az://, file:/// or memory:///")
    if parts.scheme in _CLOUDS and not parts.netloc:
        raise ValueError(f"{url!r} names no bucket: {parts.scheme}://bucket/prefix")
    user = parts.username and not parts.scheme.startswith("abfs")  # abfss://container@account.dfs.core.windows.net/
    if user or parts.password or parts.query or parts.fragment:
        raise ValueError(f"{Redactor(())(url)!r}: credentials and options do not belong into the URL")
    names = unquote(parts.path).strip("/").split("/")
    if any(name in {".", ".."} or (not name and len(names) > 1) for name in names) or "\\" in parts.path:
        raise ValueError(f"{url!r}: a prefix is made of names, not of '.', '..' or nothing")
