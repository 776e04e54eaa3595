"""The commands ``export``, ``check``, ``read`` and ``tail``, with errors in one line each."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal, TextIO

from kevents._clients.client import KubeconfigError
from kevents._model.wire import format_error, pluralize, printable
from kevents.exceptions import KeventsError, UnavailableError
from kevents.export._config.file import ClusterConfig, ConfigError, load
from kevents.export._config.table_reader import KNOWN, SecretError
from kevents.export._model.statistics import DestinationStatistics, ExportStatistics
from kevents.export._operate.build import Parts, build, check, kubeconfig_of, place_of_sink
from kevents.export._operate.filters import (
    Counts,
    OptionError,
    check_namespaces,
    filter_of,
    period_of_options,
    spelling_hint,
)
from kevents.export._operate.health import ListenError
from kevents.export._operate.logs import FIELDS, LOGGER, StatusLine, is_terminal, logging_to
from kevents.export._operate.tail import Columns, as_json, as_lines, colourful, flushed, name_of, tail
from kevents.export._read.archive import ArchiveError, Period, Segment, segments
from kevents.export._read.reader import REMEMBERED, Damage, Damages, read_archive
from kevents.export._source.api import ApiReader
from kevents.export._source.source import ClusterEventSource

UNACKNOWLEDGED: Final = 1
_REDRAW_PERIOD: Final = 0.5  # seconds
_LOG_PERIOD: Final = 60.0


def run_export(parts: Parts) -> int:
    """Run an export until SIGTERM or Ctrl-C. A second signal ends the process at once, which loses nothing.

    Returns 1 if not everything that was read was acknowledged in time, else 0. The next run reads it again.
    """
    exporter = parts.exporter
    with ExitStack() as stack:
        if parts.health is not None:
            stack.enter_context(parts.health)
            LOGGER.info("metrics and probes at %s", parts.health.address)
        received = stack.enter_context(_signals(exporter.stop))
        LOGGER.info("the export begins")
        try:
            left = exporter.run()
        finally:
            why = f" after {received[0]}" if received else ""
            LOGGER.info("the export has ended%s", why, extra={FIELDS: figures(exporter.statistics())})
    return UNACKNOWLEDGED if left else 0


@contextmanager
def _signals(stop: Callable[[], object]) -> Iterator[list[str]]:
    """Stop the export at SIGTERM or Ctrl-C, and restore the default action for the next signal; ignore SIGHUP."""
    received: list[str] = []
    numbers = (signal.SIGTERM, signal.SIGINT)

    def handle(number: int, frame: object) -> None:  # noqa: ARG001
        received.append(signal.Signals(number).name)
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)
        stop()

    def ignore(number: int, frame: object) -> None:  # noqa: ARG001
        LOGGER.info("SIGHUP is ignored: restart the export to apply a changed configuration")

    handlers: dict[int, Any] = dict.fromkeys(numbers, handle)
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = ignore
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def log_setup(stream: TextIO, *, logs: str, shared: bool = False) -> Iterator[StatusLine | None]:
    """Set up the log: text on a terminal, with the status line that is returned, else JSON lines."""
    terminal = is_terminal(stream)
    as_json = logs == "json" or (logs == "auto" and not terminal)
    line = StatusLine(stream) if terminal and not as_json and not shared else None
    with logging_to(line or stream, as_json=as_json):
        yield line


def run_with_logs(parts: Parts, *, logs: str = "auto", shared: bool = False, stream: TextIO | None = None) -> int:
    """Run an export as `run_export` does, with a log and its progress."""
    target = sys.stderr if stream is None else stream
    with log_setup(target, logs=logs, shared=shared) as line, progress_shown(parts.exporter.statistics, line):
        return run_export(parts)


def status(statistics: ExportStatistics, rate: float) -> str:
    """The text of the status line; ``rate`` is in records read per second."""
    read = sum(stream.read for stream in statistics.streams)
    gaps = sum(stream.gaps for stream in statistics.streams)
    parts = [f"{statistics.state}: {read:,} read, {rate:,.0f}/s", *map(_sink, statistics.destinations)]
    return printable(KNOWN.clean(" | ".join([*parts, f"{gaps} gaps"] if gaps else parts)))


def _sink(sink: DestinationStatistics) -> str:
    text = f"{sink.name}: {sink.written:,} written, {sink.waiting:,} waiting"
    lost = sink.dropped + sink.refused
    text += f", {sink.dead_lettered:,} dead letters" if sink.dead_lettered else ""
    text += f", {lost:,} lost" if lost else ""
    return text + (f", failing: {sink.last_error}" if sink.failing else "")


def figures(statistics: ExportStatistics) -> dict[str, Any]:
    return {
        "state": statistics.state,
        "read": sum(stream.read for stream in statistics.streams),
        "gaps": sum(stream.gaps for stream in statistics.streams),
        "sinks": {
            sink.name: {
                "written": sink.written,
                "waiting": sink.waiting,
                "retries": sink.retries,
                "dead_letters": sink.dead_lettered,
                "lost": sink.dropped + sink.refused,
            }
            for sink in statistics.destinations
        },
    }


@contextmanager
def progress_shown(statistics: Callable[[], ExportStatistics], line: StatusLine | None) -> Iterator[None]:
    """Show the progress of an export during a block: in the status line, or in the log once a minute."""
    ended = threading.Event()

    def show() -> None:
        last, read = monotonic(), 0
        while not ended.wait(_LOG_PERIOD if line is None else _REDRAW_PERIOD):
            found = statistics()
            if line is None:
                LOGGER.info("progress", extra={FIELDS: figures(found)})
                continue
            now, total = monotonic(), sum(stream.read for stream in found.streams)
            line.show(status(found, (total - read) / max(now - last, 0.001)))
            last, read = now, total

    thread = threading.Thread(target=show, name="kevents-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5.0)
        if line is not None:
            line.show("")


FAILED: Final = 1
USAGE_ERROR: Final = 2
INTERRUPTED: Final = 130
_TIMEOUT: Final = 5.0  # seconds
_MOST_SHOWN: Final = 10
_FIXES: Final = (  # advice for programs, each with that for users of the command
    (
        "give kevents.CoreV1EventSink an api",
        "name a kubeconfig (--kubeconfig of tail; kubeconfig in the table [cluster] of a configuration)",
    ),
    ("give the source a cluster name of your own, with cluster=", 'give it an id of your own: id = "..." in [cluster]'),
)
_USER_ERRORS: Final = (ArchiveError, KeventsError, KubeconfigError, ListenError, OptionError, SecretError)


def run(options: argparse.Namespace) -> int:
    """Run a command and return the exit status."""
    try:
        return _COMMANDS[options.command](options)
    except ConfigError as error:
        _print_error(*error.lines, f"kevents: {pluralize(len(error.lines), 'error')}")
        return USAGE_ERROR
    except _USER_ERRORS as error:
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


def _export(options: argparse.Namespace) -> int:
    config = load(options.config)
    to_stdout = any(sink.type == "stdout" for sink in config.sinks.values())
    return run_with_logs(build(config), logs=options.logs, shared=to_stdout and is_terminal(sys.stdout))


def _tail(options: argparse.Namespace) -> int:
    if options.all_namespaces:  # as in kubectl, it overrides -n
        options.namespace = None
    namespaces = options.namespace or []
    check_namespaces(namespaces)
    wanted = filter_of(options)
    api = kubeconfig_of(ClusterConfig(options.kubeconfig, options.context))
    start: Literal["all", "now"] = "all" if options.since else "now"
    # No position is stored, so the identity of the cluster is not needed.
    source = ClusterEventSource(api, namespaces=namespaces, start=start, cluster="")
    kinds = [*(options.kind or ()), *([options.about.partition("/")[0]] if options.about else ())]
    if hint := spelling_hint(kinds, options.types):
        _print_error(f"kevents: {hint}")
    with logging_to(sys.stderr, as_json=False):
        source.reach()
        for name in namespaces:
            with suppress(UnavailableError):  # the stream reports a server that is failing
                answer = ApiReader(api).get(f"/api/v1/namespaces/{name}", "application/json", _TIMEOUT)
                if answer.status == HTTPStatus.NOT_FOUND:
                    _print_error(f"kevents: the namespace {name} does not exist; waiting for it")
        streams = source.open()
        if is_terminal(sys.stderr) and not options.since:
            where = f"namespace {', '.join(namespaces)}" if namespaces else "all namespaces"
            _print_error(f"events of {where} from now on; --since 1h shows earlier ones too")
        with suppress(KeyboardInterrupt):
            tail(streams, wanted, flushed(sys.stdout, _output(options)))
    return INTERRUPTED


def _output(options: argparse.Namespace) -> Callable[[Mapping[str, Any]], object]:
    """Return the function that writes a record. Without options of its own, `read` cuts nothing and shows times."""
    if options.json or options.output == "json":
        return as_json(sys.stdout.buffer)
    if options.output == "name":
        return as_lines(sys.stdout, name_of)
    wide = options.output == "wide"
    cut = is_terminal(sys.stdout) and not (wide or getattr(options, "wide", True))
    columns = Columns(
        colour=colourful(sys.stdout),
        namespaces=len(options.namespace or ()) != 1,
        timestamps=getattr(options, "timestamps", True),
        wide=wide,
        encoding=getattr(sys.stdout, "encoding", None) or "ascii",
        cut=(lambda: shutil.get_terminal_size().columns) if cut else int,
    )
    return as_lines(sys.stdout, columns.line, "" if getattr(options, "no_headers", False) else columns.head())


def _read(options: argparse.Namespace) -> int:
    wanted, period = filter_of(options), period_of_options(options)
    counts = Counts([name.strip() for name in options.count_by.split(",")]) if options.count_by else None
    place, store = place_of_sink(load(options.config), options.place) if options.config else (options.place, None)
    if hint := spelling_hint(options.kind or (), options.types):
        _print_error(f"kevents: {hint}")
    damage = _DamageReport()
    records = read_archive(
        _segments(place, store, period),
        damage,
        where=wanted.targets_of,
        period=period,
        remembered=0 if options.duplicates else REMEMBERED,
    )
    if counts is not None:
        _write_counts(counts, records, in_json=options.json or options.output == "json")
    else:
        show = _output(options)
        for record in records:
            show(record)
        sys.stdout.flush()
    return FAILED if damage.total else 0


def _write_counts(counts: Counts, records: Iterable[Mapping[str, Any]], *, in_json: bool) -> None:
    for record in records:
        counts.add(record)
    if in_json:
        show = as_json(sys.stdout.buffer)
        for key, count in counts.rows():
            show({**dict(zip(counts.fields, key, strict=True)), "count": count})
    else:
        rows = [tuple(map(str.upper, counts.fields)), *(tuple(map(printable, key)) for key, _ in counts.rows())]
        numbers = ["COUNT", *(str(number) for _, number in counts.rows())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        width = max(map(len, numbers))
        for row, number in zip(rows, numbers, strict=True):
            cells = "".join(f"{cell:{wide}}  " for cell, wide in zip(row, widths, strict=True))
            sys.stdout.write(f"{cells}{number:>{width}}\n")
    sys.stdout.flush()
    if counts.gaps:
        _print_error(f"kevents: {pluralize(counts.gaps, 'gap')}: events of the period may be missing")


def _segments(place: str, options: Callable[[], Mapping[str, Any]] | None, period: Period) -> Iterator[Segment]:
    found = period.bounded  # all segments may be outside of the period
    for segment in segments(place, options, period):
        found = True
        yield segment
    if not found:
        raise ArchiveError(f"{place} contains no segments of an export")


class _DamageReport(Damages):
    """Reports damage at once: the first ones of each file, then their number."""

    _of_this_file = 0

    def add(self, damage: Damage) -> None:
        super().add(damage)
        self._of_this_file += 1
        if self._of_this_file <= _MOST_SHOWN:
            _print_error(f"kevents: {damage}")

    def end(self, file: str, *, foreign: bool) -> None:
        if self._of_this_file > _MOST_SHOWN:
            _print_error(f"kevents: {file}: and {self._of_this_file - _MOST_SHOWN:,} more in this file")
        if foreign:
            _print_error(f"kevents: {file}: contains nothing readable: is this a file of an export?")
        self._of_this_file = 0


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "check": lambda options: check(Path(options.config), options.event, sys.stdout),
    "export": _export,
    "read": _read,
    "tail": _tail,
}
