"""Several destinations at different positions of one cluster, after outages and storage resets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kevents.export import BatchOptions, Exporter, Position
from kevents.testing import APIServer, FakeClock
from tests.export.doubles import Everywhere, MemorySink
from tests.export.pipeline.test_exporter import running
from tests.export.reading import put, source


def run(server: APIServer, sinks: Mapping[str, MemorySink], last: str, **options: Any) -> None:
    """Export to all sinks until each has received the event `last`."""
    export = Exporter(
        source(server, cluster="c", **options),
        routes=Everywhere(*sinks),
        sinks=sinks,
        batch=BatchOptions(max_age=0.01),
    )
    with running(export):
        for sink in sinks.values():
            sink.wait(lambda sink=sink: last in ids(sink))


def ids(sink: MemorySink) -> list[str]:
    """The ids that a sink received, without gaps."""
    given = [one.id for batch in sink.batches for one in batch.records]
    return [one for one in given if not one.startswith("gap:")]


def whys(sink: MemorySink) -> list[str]:
    """The reasons of the gaps that a sink received."""
    bodies = [one.body["kevents"] for batch in sink.batches for one in batch.records]
    return [body["gap"]["why"] for body in bodies if "gap" in body]


def holding(server: APIServer, one: str, now: int = 0) -> MemorySink:
    """Return a sink whose saved position is that of one event."""
    (stream,) = source(server, cluster="c").open()
    rv = int(one.rpartition(":")[2])
    return MemorySink(positions={stream.stream: Position(stream.stream, rv, now)})


class TestReset:
    """The storage was reset, and destinations are new or behind."""

    @pytest.mark.parametrize("options", [{}, {"start": "all"}], ids=["additional sink", "all"])
    def test_after_a_reset(self, api_server: APIServer, options: dict[str, Any]) -> None:
        """A sink that went through a reset receives new events even if another sink is empty."""
        put(api_server, "kept")
        backup = api_server.backup()
        *_, last = put(api_server, "a", "b")
        old, new = MemorySink(), MemorySink()
        run(api_server, {"old": old}, last)
        api_server.restore(backup)
        (after,) = put(api_server, "after")
        run(api_server, {"old": old}, after)
        late = put(api_server, "late1", "late2")
        run(api_server, {"old": old, "new": new}, late[-1], **options)
        assert ids(old)[-2:] == late
        assert ids(new)[-2:] == late

    def test_a_reset_that_only_the_further_sink_can_tell(self, api_server: APIServer) -> None:
        """A list older than any sink's position means a reset, even if another sink is empty."""
        put(api_server, "kept")
        backup = api_server.backup()
        *_, last = put(api_server, *[f"lost{n}" for n in range(5)])
        old, new = MemorySink(), MemorySink()
        run(api_server, {"old": old}, last)
        api_server.restore(backup)
        late = put(api_server, "late1", "late2")
        run(api_server, {"old": old, "new": new}, late[-1])
        assert ids(old)[-2:] == late

    def test_positions_of_two_ages(self, api_server: APIServer) -> None:
        """A sink that was away during the reset receives a gap. Both sinks receive the new events."""
        kept = put(api_server, "kept")
        backup = api_server.backup()
        *_, last = put(api_server, "a", "b")
        one, other = MemorySink(), MemorySink()
        run(api_server, {"one": one, "other": other}, last)
        api_server.restore(backup)
        (after,) = put(api_server, "after")
        run(api_server, {"one": one}, after)
        late = put(api_server, *[f"late{n}" for n in range(5)])  # The server is past the lower position again.
        run(api_server, {"one": one, "other": other}, late[-1])
        assert ids(one)[-5:] == late
        assert ids(other)[-7:] == [*kept, after, *late]
        assert ([*whys(one)], [*whys(other)]) == (["reset"], ["reset"])


class TestGap:
    """Events that several destinations miss have expired."""

    def test_reported_to_all_sinks(self) -> None:
        """Every sink receives the gap, also the one that was ahead: it misses the same events."""
        clock = FakeClock()
        with APIServer(clock=clock, event_ttl=3600) as server:
            first, second, *_ = put(server, "one", "two", "lost")
            behind, further = holding(server, first, clock()), holding(server, second, clock())
            clock.advance(7200)
            (lives,) = put(server, "lives")
            run(server, {"behind": behind, "further": further}, lives, clock=clock)
        assert (whys(behind), whys(further)) == (["expired"], ["expired"])
