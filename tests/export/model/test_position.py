"""How a stream's resourceVersions are ordered, and which counts and revisions it remembers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export._model.position import AGE, Counts, Ledger, Order, number_of


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("1", 1),
        ("18446744073709551616", 2**64),
        ("9" * 100, int("9" * 100)),
        ("", None),
        ("0", None),
        ("007", None),
        ("1_0", None),
        (" 7", None),
        ("+7", None),
        ("7a", None),
        ("٣", None),
        ("9" * 5000, None),
    ],
    ids=lambda value: str(value)[:12],
)
def test_number(version: str, number: int | None) -> None:
    """A resourceVersion is a number of any length, digits only and without a leading zero, or it is none."""
    assert number == number_of(version)


class TestOrder:
    """Numbers that only grow."""

    def test_as_they_are(self) -> None:
        """A server's own number stands for itself."""
        order = Order(70)
        assert (order.place(71), order.last) == (71, 70)
        order.advance(71)
        order.advance(60)
        assert order.last == 71

    def test_reset(self) -> None:
        """After the storage was reset, smaller numbers stand after all that were read."""
        order = Order(70)
        assert (order.is_reset(70), order.is_reset(69)) == (False, True)
        began = order.reset()
        assert 70 < began < order.place(5)
        assert began == order.last

    def test_restart_after_a_reset(self) -> None:
        """A position of a later age tells the age, so that a restart sees no reset where there is none."""
        order = Order(AGE + 50)
        assert (order.is_reset(50), order.is_reset(49), order.place(51)) == (False, True, AGE + 51)
        order.reset()
        assert order.place(3) == 2 * AGE + 3

    @pytest.mark.parametrize("last", [0, 30, AGE + 30])
    def test_what_any_destination_holds(self, last: int) -> None:
        """The age is the latest that any destination has seen, and a list below it is an earlier storage's."""
        order = Order(last, AGE + 50)
        assert (order.last, order.place(51)) == (max(last, AGE), AGE + 51)
        assert (order.is_reset(50), order.is_reset(49)) == (False, True)
        assert order.reset() == 2 * AGE

    @given(st.integers(1, 2**63 - 1), st.integers(1, 2**63 - 1), st.integers(0, 8))
    def test_as_text(self, old: int, new: int, age: int) -> None:
        """Also as texts of twenty digits at least, as keys in an object store, later ages come later."""
        order = Order(age * AGE + old)
        before = f"{order.last:020d}"
        order.reset()
        assert before < f"{order.place(new):020d}"

    def test_invented(self) -> None:
        """A server without numbers gets some, from a clock that may stand still or go back."""
        order = Order(100)
        numbers = []
        for now in (90, 200, 200, 150):
            number = order.invent(now)
            order.advance(number)
            numbers.append(number)
        assert numbers == [101, 200, 201, 202]


class TestCounts:
    """By how much counts grow."""

    def test_one_to_twenty(self) -> None:
        """An event counted from 1 to 20 has grown by 20 in sum."""
        counts = Counts()
        deltas = [counts.delta("a", count, born=count == 1) for count in range(1, 21)]
        assert deltas == [1] * 20

    def test_missed(self) -> None:
        """Revisions that were not seen are counted by the next."""
        counts = Counts()
        assert [counts.delta("a", 1, born=True), counts.delta("a", 7, born=False)] == [1, 6]

    def test_unknown(self) -> None:
        """Where the count before cannot be known, nothing is made up; a count of one needs none."""
        counts = Counts()
        assert (counts.delta("a", 7, born=False), counts.delta("b", 1, born=False)) == (None, 1)
        assert counts.delta("a", 8, born=False) == 1

    def test_same_again(self) -> None:
        """A revision that is no occurrence adds none."""
        counts = Counts()
        assert [counts.delta("a", 3, born=True), counts.delta("a", 3, born=False)] == [3, 0]

    def test_written_again(self) -> None:
        """An expired event that its recorder writes again with a count that goes on has grown by the difference."""
        counts = Counts()
        counts.delta("a", 5, born=True)
        assert counts.delta("a", 6, born=True) == 1

    def test_begun_again(self) -> None:
        """One that begins anew counts from the beginning; a count that is put back is not known."""
        counts = Counts()
        counts.delta("a", 5, born=True)
        assert (counts.delta("a", 1, born=True), counts.delta("a", 4, born=False)) == (1, 3)
        assert counts.delta("a", 2, born=False) is None

    def test_bounded(self) -> None:
        """The events longest unseen are forgotten, and that is counted."""
        counts = Counts(2)
        for key in ("a", "b", "a", "c"):
            counts.note(key, 2)
        assert ("a" in counts, "b" in counts, "c" in counts) == (True, False, True)
        assert (len(counts), counts.forgotten) == (2, 1)
        assert counts.delta("b", 3, born=False) is None


class TestLedger:
    """Revisions of servers whose versions are no numbers."""

    def test_new(self) -> None:
        """A revision is new once."""
        ledger = Ledger()
        told = [ledger.is_new("a", "x"), ledger.is_new("a", "x"), ledger.is_new("a", "y"), ledger.is_new("b", "y")]
        assert told == [True, False, True, True]

    def test_bounded(self) -> None:
        """What was longest unseen is forgotten, and taken for new."""
        ledger = Ledger(2)
        for key in "abc":
            ledger.is_new(key, "x")
        assert (ledger.is_new("c", "x"), ledger.is_new("a", "x")) == (False, True)


def test_memory_of_revisions() -> None:
    """A ledger remembers as many events as its limit, and forgets the one that was longest not read."""
    ledger = Ledger(limit=2)
    assert [ledger.is_new(*revision) for revision in (("a", "1"), ("b", "1"), ("a", "2"))] == [True] * 3
    assert [ledger.is_new(*revision) for revision in (("b", "1"), ("a", "2"))] == [False] * 2
    assert ledger.is_new("a", "3")
    assert ledger.is_new("c", "1")
    assert [ledger.is_new("a", "3"), ledger.is_new("b", "1")] == [False, True]


def test_ages_are_longer_than_any_version() -> None:
    """Whatever an unsigned number of 64 bits can say fits into one age; a stream begins at 0."""
    assert AGE > 2**64
    order = Order()
    assert (order.last, order.reset(), order.place(1)) == (0, AGE, AGE + 1)
