"""From the tables of a configuration to what it says, every error told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, Final

from kevents.export._config.settings import ClusterConfig, Config, EnrichConfig, HealthConfig, SourceConfig
from kevents.export._config.sinks import SinkConfig, read_sink
from kevents.export._config.table_reader import TableReader
from kevents.export._model.text import shown, unknown
from kevents.export._route.matchers import CONDITIONS, ConditionError, questions
from kevents.export._route.routes import Route
from kevents.export._source.repeats import parse_repeats

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)
_STARTS: Final = ("resume", "now", "all")
_LISTEN: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]/]*)):(?P<port>\d{1,5})", re.ASCII)
_LARGEST_PORT: Final = 65_535


def read(top: TableReader, file: str) -> Config:
    """Read a whole configuration.

    Args:
        top: The file's table; what is wrong is told to its problems.
        file: The file's name.
    """
    config = Config(
        file,
        _cluster(top.section("cluster")),
        _source(top.section("source")),
        _enrich(top.section("enrich")),
        _sinks(top.section("sinks")),
        _routes(top.sections("routes")),
        _health(top.section("health")),
        top.text("checkpoints"),
        top.text("dead_letters"),
        top.duration("grace", 25.0),
    )
    top.done()
    _check_ends(config, top)
    return config


def _cluster(section: TableReader) -> ClusterConfig:
    config = ClusterConfig(*(section.text(key) for key in ("kubeconfig", "context", "name", "id")))
    section.done()
    return config


def _source(section: TableReader) -> SourceConfig:
    config = SourceConfig(
        section.texts("namespaces"),
        section.text("start", "resume", choices=_STARTS),
        section.text("repeats", "all"),
        section.duration("event_life", 3600.0),
    )
    if len(set(config.namespaces)) != len(config.namespaces):
        section.wrong("namespaces", "names a namespace twice")
    try:
        parse_repeats(config.repeats, config.event_life)
    except ValueError as error:
        section.wrong("repeats", str(error).removeprefix("repeats "))
    section.done()
    return config


def _enrich(section: TableReader) -> EnrichConfig:
    config = EnrichConfig(
        section.count("cache_size", 1024, least=0),
        section.flag("top_owner", default=True),
        section.flag("services", default=False),
    )
    section.done()
    return config


def _health(section: TableReader) -> HealthConfig:
    listen = section.text("listen")
    limits = section.duration("stale_after", 300.0), section.duration("unacknowledged_after", 60.0)
    section.done()
    if not listen:
        return HealthConfig(None, 0, *limits)
    match = _LISTEN.fullmatch(listen)
    host = (match["six"] or match["host"] or "127.0.0.1") if match else ""
    if not match or int(match["port"]) > _LARGEST_PORT or not _is_address(host):
        section.wrong(
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


def _sinks(section: TableReader) -> dict[str, SinkConfig]:
    sinks = {}
    for name in section.keys():  # noqa: SIM118 - it is no dictionary
        if not _NAME.fullmatch(name):
            section.wrong(name, "a sink's name is made of letters, digits, - and _, at most 63: it names files too")
        sinks[name] = read_sink(name, section.section(name))
    return sinks


def _routes(sections: list[TableReader]) -> tuple[Route, ...]:
    seen: set[str] = set()
    routes = []
    for section in sections:
        identity = section.text("id")
        if identity and identity in seen:
            section.wrong("id", f"{shown(identity)} is the id of an earlier route too: give this one another")
        seen.add(identity)
        routes.append(_route(section, identity))
    return tuple(route for route in routes if route is not None)


def _route(section: TableReader, identity: str) -> Route | None:
    """Read a route: each condition by itself first, so that each that is wrong is told."""
    to: Any = section.texts("to") if section.is_list("to") else (section.text("to") or ())
    everything, stop = section.flag("all", default=False), section.flag("stop", default=False)
    conditions = section.rest()
    good = True
    for key, value in conditions.items():
        good &= _is_condition(section, key, value)
    try:
        return Route(to=to, all=everything, stop=stop, id=identity, **conditions) if good else None
    except ConditionError as error:
        section.problems.add((*section.path, *error.path), error.why)
        return None


def _is_condition(section: TableReader, key: str, value: Any) -> bool:  # noqa: ANN401
    if key not in CONDITIONS:
        section.wrong(key, unknown("key", key, ("to", "all", "stop", "id", *CONDITIONS)))
        return False
    try:
        return bool(list(questions({key: value})))
    except ConditionError as error:
        section.problems.add((*section.path, *error.path), error.why)
        return False


def _check_ends(config: Config, top: TableReader) -> None:
    """Hold routes and sinks against each other."""
    names, routes = list(config.sinks), top.table.get("routes") or []
    if not names and not top.problems.about(("sinks",)):
        top.wrong("sinks", 'there is none: add one, [sinks.out] with type = "stdout"')
    if not routes:
        top.wrong(
            "routes", f"there is none: add [[routes]] with to = {shown(names[0] if names else 'out')}, all = true"
        )
    named = set()
    for path, name in _ends(routes):
        named.add(name)
        if name not in names:
            top.problems.add(path, unknown("sink", name, names))
    for name in names:
        if routes and name not in named:
            top.problems.add(("sinks", name), "no route goes to it: add one, or remove the sink")
    _check_positions(config, top)
    _check_places(config, top)


def _ends(routes: object) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Each name of a sink in the routes, with its place; what is no name is told elsewhere."""
    for number, route in enumerate(routes if isinstance(routes, list) else []):
        to = route.get("to") if isinstance(route, dict) else None
        if isinstance(to, str) and to:
            yield ("routes", number, "to"), to
        for position, name in enumerate(to if isinstance(to, list) else []):
            if isinstance(name, str):
                yield ("routes", number, "to", position), name


def _check_positions(config: Config, top: TableReader) -> None:
    """A destination that cannot hold how far it got needs a checkpoint beside it, or a restart doubles an hour."""
    for name, sink in config.sinks.items():
        if sink.needs_checkpoint and not config.checkpoints:
            top.problems.add(
                ("sinks", name),
                f"a sink of type {shown(sink.type)} cannot hold how far it got: say where, "
                'checkpoints = "state/", above all tables',
            )


def _check_places(config: Config, top: TableReader) -> None:
    places: dict[str, str] = {}
    for name, sink in config.sinks.items():
        other = places.setdefault(sink.place, name) if sink.place else name
        if other != name:
            top.problems.add(("sinks", name), f"writes to the same place as the sink {shown(other)}: give it another")
