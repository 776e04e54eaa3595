"""The schema of the configuration: its values, its defaults, and the rules between its tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final

from kevents.export._config.sinks import SinkConfig, read_sink
from kevents.export._config.table_reader import KeyPath, TableReader
from kevents.export._model.text import namespace_problem, shown, unknown
from kevents.export._route.matchers import CONDITIONS, ConditionError, compile_matchers
from kevents.export._route.routes import Route
from kevents.export._source.revision_filter import parse_repeats

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)
_STARTS: Final = ("resume", "now", "all")
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
    """The table ``[source]``."""

    namespaces: tuple[str, ...] = ()  # each is a stream; empty for one stream of all namespaces
    start: str = "resume"  # ``resume``, ``now`` or ``all``
    repeats: str = "all"  # ``all``, ``first``, or a window such as ``30s``
    event_life: float = 3600.0  # seconds that the API server keeps an event


@dataclass(frozen=True, slots=True)
class EnrichConfig:
    """The table ``[enrich]``; a ``cache_size`` of 0 disables enrichment."""

    cache_size: int = 1024
    top_owner: bool = True
    services: bool = False
    qps: int = 20  # requests a second
    burst: int = 40  # requests at once after a pause
    wait: float | None = None  # seconds that a record waits; None: as long as its batch


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """The table ``[health]``: the server for metrics and probes."""

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


def read(top: TableReader, file: str) -> Config:
    """Read a whole configuration."""
    config = Config(
        file,
        _cluster(top.child("cluster")),
        _source(top.child("source")),
        _enrich(top.child("enrich")),
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


def _cluster(table: TableReader) -> ClusterConfig:
    config = ClusterConfig(*(table.text(key) for key in ("kubeconfig", "context", "name", "id")))
    table.done()
    return config


def _source(table: TableReader) -> SourceConfig:
    config = SourceConfig(
        table.texts("namespaces"),
        table.text("start", "resume", choices=_STARTS),
        table.text("repeats", "all"),
        table.duration("event_life", 3600.0),
    )
    if len(set(config.namespaces)) != len(config.namespaces):
        table.wrong("namespaces", "names a namespace twice")
    for number, name in enumerate(config.namespaces):
        if problem := namespace_problem(name):
            table.problems.add((*table.path, "namespaces", number), problem)
    try:
        parse_repeats(config.repeats, config.event_life)
    except ValueError as error:
        table.wrong("repeats", str(error).removeprefix("repeats "))
    table.done()
    return config


def _enrich(table: TableReader) -> EnrichConfig:
    config = EnrichConfig(
        table.count("cache_size", 1024, least=0),
        table.flag("top_owner", default=True),
        table.flag("services", default=False),
        table.count("qps", 20),
        table.count("burst", 40),
        table.duration("wait", 0.0) or None,
    )
    table.done()
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
    everything, stop = table.flag("all", default=False), table.flag("stop", default=False)
    conditions = table.rest()
    good = True
    for key, value in conditions.items():
        good &= _is_condition(table, key, value)
    try:
        return Route(to=to, all=everything, stop=stop, id=identity, **conditions) if good else None
    except ConditionError as error:
        table.problems.add((*table.path, *error.path), error.why)
        return None


def _is_condition(table: TableReader, key: str, value: Any) -> bool:  # noqa: ANN401
    if key not in CONDITIONS:
        table.wrong(key, unknown("key", key, ("to", "all", "stop", "id", *CONDITIONS)))
        return False
    try:
        return bool(list(compile_matchers({key: value})))
    except ConditionError as error:
        table.problems.add((*table.path, *error.path), error.why)
        return False


def _check_routes(config: Config, top: TableReader) -> None:
    """Check that routes and sinks name each other."""
    names, routes = list(config.sinks), top.table.get("routes") or []
    if not names and not top.problems.about(("sinks",)):
        top.wrong("sinks", 'there is none: add [sinks.out] with type = "stdout"')
    if not routes:
        top.wrong(
            "routes", f"there is none: add [[routes]] with to = {shown(names[0] if names else 'out')}, all = true"
        )
    named = set()
    for path, name in _targets(routes):
        named.add(name)
        if name not in names:
            top.problems.add(path, unknown("sink", name, names))
    for name in names:
        if routes and name not in named:
            top.problems.add(("sinks", name), "no route goes to it: add one, or remove the sink")
    _check_positions(config, top)
    _check_places(config, top)


def _targets(routes: object) -> Iterator[tuple[KeyPath, str]]:
    """The sinks that routes name, each with its place. Values of other types are reported elsewhere."""
    for number, route in enumerate(routes if isinstance(routes, list) else []):
        to = route.get("to") if isinstance(route, dict) else None
        if isinstance(to, str) and to:
            yield ("routes", number, "to"), to
        for position, name in enumerate(to if isinstance(to, list) else []):
            if isinstance(name, str):
                yield ("routes", number, "to", position), name


def _check_positions(config: Config, top: TableReader) -> None:
    """A sink that stores no position needs a checkpoint, or every restart would repeat up to an hour of events."""
    for name, sink in config.sinks.items():
        if sink.needs_checkpoint and not config.checkpoints:
            why = f'a sink of type {shown(sink.type)} stores no position: add checkpoints = "state/" above all tables'
            top.problems.add(("sinks", name), why)


def _check_places(config: Config, top: TableReader) -> None:
    places: dict[str, str] = {}
    for name, sink in config.sinks.items():
        other = places.setdefault(sink.place, name) if sink.place else name
        if other != name:
            top.problems.add(("sinks", name), f"writes to the same place as the sink {shown(other)}: choose another")
