"""Benchmarks of the correlator for each event of a mix, and of building the bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import kevents
from tests.bench.subjects import MIXES, event

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytest.importorskip("pytest_benchmark")

EVENTS = 5_000


@pytest.mark.parametrize("name", MIXES)
def test_correlate(benchmark: BenchmarkFixture, name: str) -> None:
    """5,000 events of a mix, including the patch bodies."""
    mix = MIXES[name]
    events = mix.make(EVENTS)
    results: list[kevents.EventCorrelateResult] = []

    def correlate(decide: Any) -> None:
        results.clear()
        for recorded in events:
            result = decide(recorded)
            result.patch  # noqa: B018 - the property builds the patch
            results.append(result)

    def afresh() -> tuple[tuple[Any], dict[str, Any]]:
        return (kevents.EventCorrelator(mix.options).event_correlate,), {}

    benchmark.pedantic(correlate, setup=afresh, rounds=10)
    created = sum(result.patch is None and not result.skip for result in results)
    expected = {"identical": 1, "skipped": 1, "messages": 10, "objects": EVENTS}
    assert created == expected.get(name, created)


def test_body(benchmark: BenchmarkFixture) -> None:
    """Building the body of a create."""
    assert benchmark(lambda: event(1).to_dict())["count"] == 1


def test_patch(benchmark: BenchmarkFixture) -> None:
    """Building the patch of a known event."""
    known = event(1).replace(count=7)
    assert benchmark(known.to_patch)["count"] == 7
