"""The commands ``export``, ``check``, ``read`` and ``tail``, with errors in one line each."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from kevents._clients.kubeconfig import KubeconfigError
from kevents._model.wire import format_error, parse_time, pluralize, printable
from kevents.exceptions import KeventsError
from kevents.export._config.file import ConfigError, load
from kevents.export._config.schema import ClusterConfig
from kevents.export._config.secrets import KNOWN, SecretError
from kevents.export._model.record import time_of
from kevents.export._model.text import duration
from kevents.export._operate.build import build, client_of, place_of_sink
from kevents.export._operate.check import EventFileError, check
from kevents.export._operate.health import ListenError
from kevents.export._operate.logs import is_terminal, logging_to
from kevents.export._operate.run import run_with_logs
from kevents.export._operate.tail import Columns, as_columns, as_json, colourful, tail
from kevents.export._read.archive import ArchiveError, Segment, segments
from kevents.export._read.reader import REMEMBERED, Damage, read_archive
from kevents.export._route.matchers import ConditionError
from kevents.export._route.routes import Route, Router
from kevents.export._source.source import ClusterEventSource

FAILED: Final = 1
USAGE_ERROR: Final = 2
INTERRUPTED: Final = 130
_NANO: Final = 1_000_000_000
_MOST_SHOWN: Final = 10
_FIXES: Final = (  # advice for programs, each with that for users of the command
    (
        "give kevents.CoreV1EventSink an api",
        "name a kubeconfig (--kubeconfig of tail; kubeconfig in the table [cluster] of a configuration)",
    ),
    ("give the source a cluster name of your own, with cluster=", 'give it an id of your own: id = "..." in [cluster]'),
)
_USER_ERRORS: Final = (ArchiveError, EventFileError, KeventsError, KubeconfigError, ListenError, SecretError)


class OptionError(Exception):
    """An option of the command line is invalid. The text names it."""


def run(options: argparse.Namespace) -> int:
    """Run a command.

    Args:
        options: The parsed options of the command ``kevents``.

    Returns:
        The exit status.
    """
    try:
        return _COMMANDS[options.command](options)
    except ConfigError as error:
        _print_error(*error.lines, f"kevents: {pluralize(len(error.lines), 'error')}")
        return USAGE_ERROR
    except (OptionError, *_USER_ERRORS) as error:
        if options.debug:
            raise
        text = str(error)
        for advice, fix in _FIXES:
            text = text.replace(advice, fix)
        _print_error(*(f"kevents: {line}" for line in text.splitlines()))
        return USAGE_ERROR
    except BrokenPipeError:
        raise
    except Exception as error:
        if options.debug:
            raise
        _print_error(f"kevents: {format_error(error)}; --debug shows the traceback")
        return FAILED


def _print_error(*lines: str) -> None:
    sys.stderr.write("".join(f"{printable(KNOWN.clean(line))}\n" for line in lines))


def _check(options: argparse.Namespace) -> int:
    return check(Path(options.config), options.event, sys.stdout)


def _export(options: argparse.Namespace) -> int:
    config = load(options.config)
    to_stdout = any(sink.type == "stdout" for sink in config.sinks.values())
    return run_with_logs(build(config), logs=options.logs, shared=to_stdout and is_terminal(sys.stdout))


def _tail(options: argparse.Namespace) -> int:
    wanted = _filter(options, since=_since(options.since))
    namespaces = options.namespace or []
    source = ClusterEventSource(
        client_of(ClusterConfig(options.kubeconfig or "", options.context or "")),
        namespaces=namespaces,
        start="all" if options.since else "now",
        cluster="",  # no position is stored, so its identity is not needed
    )
    columns = _columns(namespaces=len(namespaces) != 1, dates=False)
    show = as_json(sys.stdout.buffer) if options.json else as_columns(sys.stdout, columns)
    with logging_to(sys.stderr, as_json=False):
        source.reach()
        streams = source.open()
        if is_terminal(sys.stderr) and not options.since:
            where = f"namespace {', '.join(namespaces)}" if namespaces else "all namespaces"
            _print_error(f"events of {where} from now on; --since 1h shows earlier ones too")
        with suppress(KeyboardInterrupt):
            tail(streams, wanted, show)
    return INTERRUPTED


def _read(options: argparse.Namespace) -> int:
    wanted = _filter(options, since=_since(options.since))
    place, store = place_of_sink(load(options.config), options.place) if options.config else (options.place, None)
    columns = _columns(namespaces=len(options.namespace or []) != 1, dates=True)
    damage = _DamageReport()
    records = read_archive(
        _segments(place, store),
        damage,
        where=lambda body: bool(wanted.targets_of(body)),
        remembered=0 if options.duplicates else REMEMBERED,
    )
    if options.json:
        _write_json(records)
    else:
        _write_lines(records, columns)
    return FAILED if damage.total else 0


def _segments(place: str, options: Callable[[], Mapping[str, Any]] | None) -> Iterator[Segment]:
    found = False
    for segment in segments(place, options):
        found = True
        yield segment
    if not found:
        raise ArchiveError(f"{place} contains no segments of an export")


class _DamageReport:
    """Reports damage at once: the first ones of each file, then their number."""

    def __init__(self) -> None:
        self.total = 0
        self._of_this_file = 0

    def damaged(self, damage: Damage) -> None:
        self.total += 1
        self._of_this_file += 1
        if self._of_this_file <= _MOST_SHOWN:
            _print_error(f"kevents: {damage}")

    def ended(self, file: str, *, foreign: bool) -> None:
        if self._of_this_file > _MOST_SHOWN:
            _print_error(f"kevents: {file}: and {self._of_this_file - _MOST_SHOWN:,} more in this file")
        if foreign:
            _print_error(f"kevents: {file}: contains nothing readable: is this a file of an export?")
        self._of_this_file = 0


def _write_json(records: Iterable[Mapping[str, Any]]) -> None:
    import msgspec  # noqa: PLC0415 - loaded by then

    out = sys.stdout.buffer  # in UTF-8, whatever the terminal's encoding is
    for record in records:
        out.write(msgspec.json.encode(record) + b"\n")
    out.flush()


def _write_lines(records: Iterable[Mapping[str, Any]], columns: Columns) -> None:
    for number, record in enumerate(records):
        head = "" if number else f"{columns.head()}\n"
        sys.stdout.write(f"{head}{columns.line(record)}\n")
    sys.stdout.flush()


def _columns(*, namespaces: bool, dates: bool) -> Columns:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return Columns(colour=colourful(sys.stdout), namespaces=namespaces, dates=dates, encoding=encoding)


def _since(text: str | None) -> int:
    """The time of the option ``--since`` in nanoseconds since the epoch, 0 without it."""
    if not text:
        return 0
    try:
        return time.time_ns() - int(duration(text) * _NANO)
    except ValueError:
        raise OptionError(f'--since must be a time with its unit, such as 30s, 10m or 2h, not "{text}"') from None


def _filter(options: argparse.Namespace, *, since: int) -> Router:
    """The filters as a route. Gaps always match."""
    conditions: dict[str, Any] = {
        "namespace": options.namespace,
        "kind": options.kind,
        "name": {"glob": options.name} if options.name else None,
        "reason": {"glob": options.reason} if options.reason else None,
        "type": "Warning" if options.warning else None,
        "when": (lambda body: _moment(body) >= since) if since else None,
    }
    given = {name: value for name, value in conditions.items() if value}
    try:
        return Router([Route(to="shown", all=not given, **given)])
    except ConditionError as error:
        raise OptionError(f"--{error.path[0] if error.path else 'kind'}: {error.why}") from None


def _moment(body: Mapping[str, Any]) -> int:
    try:
        return parse_time(time_of(dict(body)))
    except (ValueError, LookupError, AttributeError):
        return 0


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "check": _check,
    "export": _export,
    "read": _read,
    "tail": _tail,
}
