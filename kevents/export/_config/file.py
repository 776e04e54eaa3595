"""The configuration of an export: a strict TOML file, whose errors are all reported at once, with their lines."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from kevents._model.wire import printable
from kevents.export._config.sinks import SinkConfig, read_sink
from kevents.export._config.table_reader import KeyPath, TableReader
from kevents.export._model.text import namespace_problem, shown, unknown
from kevents.export._route.routes import CONDITIONS, ConditionError, Route, compile_matchers
from kevents.export._source.revision_filter import parse_repeats

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)
_LISTEN: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]/]*)):(?P<port>\d{1,5})", re.ASCII)
_LARGEST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The table ``[cluster]``. Without kubeconfig and context: in-cluster, else the usual kubeconfig."""

    kubeconfig: str = ""
    context: str = ""  # of the kubeconfig; empty for the current one
    name: str = ""  # ``clusterName`` in each record
    id: str = ""  # identity in positions and file names; empty for the UID of ``kube-system``


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """The table ``[source]``: arguments of `ClusterEventSource`."""

    namespaces: tuple[str, ...] = ()  # each is a stream; empty for one stream of all namespaces
    start: str = field(default="resume", metadata={"choices": ("resume", "now", "all")})
    repeats: str = "all"  # ``all``, ``first``, or a window such as ``30s``
    event_life: float = 3600.0  # seconds that the API server keeps an event


@dataclass(frozen=True, slots=True)
class EnrichConfig:
    """The table ``[enrich]``: arguments of `Enricher`; a ``cache_size`` of 0 disables enrichment."""

    cache_size: int = field(default=1024, metadata={"least": 0})
    top_owner: bool = True
    services: bool = False
    qps: int = 20  # requests a second
    burst: int = 40  # requests at once after a pause
    wait: float = 0.0  # seconds that a record waits; 0: as long as its batch


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """The table ``[health]``: arguments of `HealthServer`, for metrics and probes."""

    host: str | None = None  # the address; None for no server
    port: int = 0  # the port; 0 for a free one
    stale_after: float = 300.0  # seconds without a fresh position until /readyz fails
    unacknowledged_after: float = 60.0  # seconds that a record may wait for a failing sink until /readyz fails


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration."""

    file: str  # its name
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    enrich: EnrichConfig = field(default_factory=EnrichConfig)
    sinks: Mapping[str, SinkConfig] = field(default_factory=dict)  # by name, in the file's order
    routes: tuple[Route, ...] = ()  # in the file's order
    health: HealthConfig = field(default_factory=HealthConfig)
    checkpoints: str = ""  # folder for the positions of sinks that store none; empty for no folder
    dead_letters: str = ""  # file for records that a sink rejects; empty to count and log them only
    grace: float = 25.0  # seconds until a shutdown gives up


class ConfigError(Exception):
    """The configuration is invalid."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines  # one line for each error


def load(file: str | Path) -> Config:
    """Load a configuration file. Raises ConfigError with a line for each error: its place, key, value and fix."""
    try:
        text = Path(file).read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read ({error.strerror or type(error).__name__})"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: is not UTF-8 text (byte {error.start}): save it as UTF-8"]) from None
    return parse(text.removeprefix("\ufeff"), str(file))


def parse(text: str, file: str = "configuration") -> Config:
    """Load a configuration from a text. Raises ConfigError if it is invalid."""
    text = text.replace("\r\n", "\n")
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or an integer with more digits than Python reads
        raise ConfigError([_syntax_error(file, str(error), text)]) from None
    except RecursionError:
        raise ConfigError([f"{file}: is nested too deeply"]) from None
    problems: list[tuple[KeyPath, str]] = []
    config = _read(TableReader(table, (), problems), file)
    if problems:
        lines = Lines(text)
        found = sorted(problems, key=lambda problem: lines.of(problem[0]))
        raise ConfigError([printable(f"{file}:{lines.of(path)}: {_key(path)}{why}") for path, why in found])
    return config


def _key(path: KeyPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return f"{text}: " if text else ""


def _syntax_error(file: str, error: str, text: str) -> str:
    match = _PARSER.fullmatch(error)
    why, line, column = match.groups() if match else (error, None, None)
    place = f"{file}:{line or text.count(chr(10)) + 1}"
    fix = "; texts need double quotes" if why == "Invalid value" else ""
    return f"{place}: is not valid TOML: {why}{f', column {column}' if column else ''}{fix}"


# -- the tables, and the rules between them


def _read(top: TableReader, file: str) -> Config:
    config = Config(
        file,
        top.child("cluster").values(ClusterConfig),
        _source(top.child("source")),
        top.child("enrich").values(EnrichConfig),
        _sinks(top.child("sinks")),
        _routes(top.children("routes")),
        _health(top.child("health")),
        top.text("checkpoints"),
        top.text("dead_letters"),
        top.duration("grace", 25.0),
    )
    top.done()
    _check_routes(config, top)
    return config


def _source(table: TableReader) -> SourceConfig:
    config = table.values(SourceConfig)
    if len(set(config.namespaces)) != len(config.namespaces):
        table.wrong("namespaces", "names a namespace twice")
    for number, name in enumerate(config.namespaces):
        if problem := namespace_problem(name):
            table.report((*table.path, "namespaces", number), problem)
    try:
        parse_repeats(config.repeats, config.event_life)
    except ValueError as error:
        table.wrong("repeats", str(error).removeprefix("repeats "))
    return config


def _health(table: TableReader) -> HealthConfig:
    listen = table.text("listen")
    limits = table.duration("stale_after", 300.0), table.duration("unacknowledged_after", 60.0)
    table.done()
    if not listen:
        return HealthConfig(None, 0, *limits)
    match = _LISTEN.fullmatch(listen)
    host = (match["six"] or match["host"] or "127.0.0.1") if match else ""
    if not match or int(match["port"]) > _LARGEST_PORT or not _is_address(host):
        table.wrong(
            "listen", f'must be an address and a port, "127.0.0.1:8080" or "0.0.0.0:8080" in a pod, not {shown(listen)}'
        )
        return HealthConfig()
    return HealthConfig(host, int(match["port"]), *limits)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def _sinks(table: TableReader) -> dict[str, SinkConfig]:
    sinks = {}
    for name in table.remaining():
        if not _NAME.fullmatch(name):
            table.wrong(
                name, "a sink's name has letters, digits, - and _, at most 63, because files are named after it"
            )
        sinks[name] = read_sink(name, table.child(name))
    return sinks


def _routes(tables: list[TableReader]) -> tuple[Route, ...]:
    seen: set[str] = set()
    routes = []
    for table in tables:
        identity = table.text("id")
        if identity and identity in seen:
            table.wrong("id", f"{shown(identity)} is also the id of an earlier route: choose another")
        seen.add(identity)
        routes.append(_route(table, identity))
    return tuple(route for route in routes if route is not None)


def _route(table: TableReader, identity: str) -> Route | None:
    """Read a route. Conditions are checked one by one first, so that each error is reported."""
    to: Any = table.texts("to") if isinstance(table.table.get("to"), list) else (table.text("to") or ())
    everything, stop = table.flag("all"), table.flag("stop")
    conditions = table.rest()
    good = True
    for key, value in conditions.items():
        good &= _is_condition(table, key, value)
    try:
        return Route(to=to, all=everything, stop=stop, id=identity, **conditions) if good else None
    except ConditionError as error:
        table.report((*table.path, *error.path), error.why)
        return None


def _is_condition(table: TableReader, key: str, value: Any) -> bool:  # noqa: ANN401
    if key not in CONDITIONS:
        table.wrong(key, unknown("key", key, ("to", "all", "stop", "id", *CONDITIONS)))
        return False
    try:
        return bool(list(compile_matchers({key: value})))
    except ConditionError as error:
        table.report((*table.path, *error.path), error.why)
        return False


def _check_routes(config: Config, top: TableReader) -> None:
    """Check that routes and sinks name each other."""
    names, routes = list(config.sinks), top.table.get("routes") or []
    if not names and ("sinks",) not in dict(top.problems):
        top.wrong("sinks", 'there is none: add [sinks.out] with type = "stdout"')
    if not routes:
        top.wrong(
            "routes", f"there is none: add [[routes]] with to = {shown(names[0] if names else 'out')}, all = true"
        )
    named = set()
    for path, name in _targets(routes):
        named.add(name)
        if name not in names:
            top.report(path, unknown("sink", name, names))
    for name in names:
        if routes and name not in named:
            top.report(("sinks", name), "no route goes to it: add one, or remove the sink")
    _check_sinks(config, top)


def _targets(routes: object) -> Iterator[tuple[KeyPath, str]]:
    """The sinks that routes name, each with its place. Values of other types are reported elsewhere."""
    for number, route in enumerate(routes if isinstance(routes, list) else []):
        to = route.get("to") if isinstance(route, dict) else None
        if isinstance(to, str) and to:
            yield ("routes", number, "to"), to
        for position, name in enumerate(to if isinstance(to, list) else []):
            if isinstance(name, str):
                yield ("routes", number, "to", position), name


def _check_sinks(config: Config, top: TableReader) -> None:
    """A sink that stores no position needs a checkpoint, or every restart would repeat up to an hour of events."""
    places: dict[str, str] = {}
    for name, sink in config.sinks.items():
        if sink.needs_checkpoint and not config.checkpoints:
            why = f'a sink of type {shown(sink.type)} stores no position: add checkpoints = "state/" above all tables'
            top.report(("sinks", name), why)
        other = places.setdefault(sink.place, name) if sink.place else name
        if other != name:
            top.report(("sinks", name), f"writes to the same place as the sink {shown(other)}: choose another")


# -- the line numbers of keys

_TOKEN: Final = re.compile(
    r"""
    (?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<multi>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5})
    |(?P<text>"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    |(?P<mark>[\[\]{}=,.\n])
    |(?P<bare>[^\s\[\]{}=,."'\#]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_PARSER: Final = re.compile(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


class Lines:
    """The line numbers of all keys of a TOML text, which the TOML parser does not give."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._found: dict[KeyPath, int] = {}
        self._lengths: dict[KeyPath, int] = {}  # of arrays of tables
        table: KeyPath = ()
        while self._next < len(self._tokens):
            word, _ = self._tokens[self._next]
            if word == "[":
                table = self._header()
            elif word == "\n":
                self._next += 1
            else:
                self._pair(table)

    def of(self, path: KeyPath) -> int:
        """The line of a key, else of the nearest table around it, else 1."""
        while path and path not in self._found:
            path = path[:-1]
        return self._found.get(path, 1)

    def _header(self) -> KeyPath:
        """Read ``[a.b]`` or ``[[a.b]]``, and return the path of the table."""
        line = self._tokens[self._next][1]
        brackets = 2 if self._tokens[self._next + 1][0] == "[" else 1
        self._next += brackets
        *above, last = self._key("]")
        self._next += brackets
        path: KeyPath = ()
        for part in above:
            path = (*path, part)
            if path in self._lengths:  # the header continues the last table of an array
                path = (*path, self._lengths[path] - 1)
        path = (*path, last)
        self._found.setdefault(path, line)
        if brackets == 1:
            return path
        number = self._lengths.get(path, 0)
        self._lengths[path] = number + 1
        path = (*path, number)
        self._found[path] = line
        return path

    def _pair(self, table: KeyPath) -> None:
        """Read ``a.b = value``."""
        line = self._tokens[self._next][1]
        path = (*table, *self._key("="))
        for length in range(len(table) + 1, len(path) + 1):
            self._found.setdefault(path[:length], line)
        self._next += 1
        self._value(path)

    def _key(self, end: str) -> list[str]:
        """Read a dotted key, and return its parts."""
        start = self._next
        while self._tokens[self._next][0] != end:
            self._next += 1
        key = "".join(word for word, _ in self._tokens[start : self._next])
        parts, found = [], tomllib.loads(f"{key} = 0")
        while isinstance(found, dict):
            [(part, found)] = found.items()
            parts.append(part)
        return parts

    def _value(self, path: KeyPath) -> None:
        """Read a value. An array or inline table ends with its bracket, another value before a separator."""
        opening, number = self._tokens[self._next][0], 0
        if opening not in ("[", "{"):
            while self._tokens[self._next][0] not in (",", "]", "}", "\n"):
                self._next += 1
            return
        self._next += 1
        while (token := self._tokens[self._next])[0] not in ("]", "}"):
            if token[0] in ("\n", ","):
                self._next += 1
            elif opening == "{":
                self._pair(path)
            else:
                item: KeyPath = (*path, number)
                self._found[item] = token[1]
                self._value(item)
                number += 1
        self._next += 1


def _tokens(text: str) -> list[tuple[str, int]]:
    """The tokens other than space and comments, each with its line."""
    tokens, line = [], 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "space":
            tokens.append((match[0], line))
        line += match[0].count("\n")
    return [*tokens, ("\n", line)]
