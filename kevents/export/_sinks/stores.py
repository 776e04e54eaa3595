"""Object stores, opened by URL: S3, Google Cloud Storage, Azure, a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

from kevents._model.validation import require_positive
from kevents._model.wire import format_error
from kevents.export._model.types import Retry
from kevents.export._sinks.redact import Redactor

if TYPE_CHECKING:
    from obstore.store import ObjectStore

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
