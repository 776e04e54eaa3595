"""Secrets are named by reference, resolved lazily, and redacted."""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time

import pytest

from kevents._model.wire import printable
from kevents.export._config.table_reader import Secret, SecretError
from kevents.export._sinks.http import Redactor

VALUE = "hunter2/with+signs"


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is read from the environment variable at each use."""
    secret = Secret(env="KEVENTS_TEST")
    monkeypatch.setenv("KEVENTS_TEST", "first-value")
    assert secret.reveal() == "first-value"
    monkeypatch.setenv("KEVENTS_TEST", "second-value")
    assert secret.reveal() == "second-value"


def test_file(tmp_path: Path) -> None:
    """A secret is read from the file at each use, without the trailing line break."""
    path = tmp_path / "token"
    path.write_bytes(b" spaces stay \r\n")
    assert Secret(file=str(path)).reveal() == " spaces stay "
    path.write_bytes(b"another")
    assert Secret(file=str(path)).reveal() == "another"


def test_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a missing secret names its source and the fix."""
    monkeypatch.delenv("KEVENTS_TEST", raising=False)
    with pytest.raises(SecretError, match=r"^the environment variable KEVENTS_TEST is not set: set it"):
        Secret(env="KEVENTS_TEST").reveal()
    path = tmp_path / "token"
    with pytest.raises(SecretError, match=r"^the file .*token cannot be read .No such file"):
        Secret(file=str(path)).reveal()
    path.write_bytes(b"\n")
    with pytest.raises(SecretError, match=r"token is empty: write the secret into it$"):
        Secret(file=str(path)).reveal()
    path.write_bytes(b"\xff")
    with pytest.raises(SecretError, match=r"is not UTF-8 text") as error:
        Secret(file=str(path)).reveal()
    assert error.value.__cause__ is None


def test_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 72: the repr of a secret is its reference, also after the secret was read."""
    monkeypatch.setenv("KEVENTS_TEST", VALUE)
    secret = Secret(env="KEVENTS_TEST")
    secret.reveal()
    assert repr(secret) == "Secret(env='KEVENTS_TEST', file='')"
    assert VALUE not in f"{secret}{secret!r}"


def test_redaction() -> None:
    """Pitfall 72: a secret that was read is redacted, also when quoted for a URL.

    Very short values are not redacted.
    """
    redactor = Redactor()
    assert redactor.clean(VALUE) == VALUE
    redactor.remember(VALUE)
    redactor.remember("ab")
    expected = "a (not shown) b (not shown) c (not shown) ab"
    assert redactor.clean(f"a {VALUE} b hunter2%2Fwith%2Bsigns c hunter2/with%2Bsigns ab") == expected


@pytest.mark.parametrize("value", ['tok"en', "to\\ken", "tö-ken", "it's", "-----BEGIN KEY-----\nabcd\nefgh", " token "])
def test_forms(value: str) -> None:
    """Pitfall 72: a secret is redacted in quoted, JSON and printable-escaped form."""
    redactor = Redactor([value])
    quoted = (repr(value), json.dumps(value), json.dumps(value, ensure_ascii=False))
    for form in (value, value.strip(), printable(value), *(text[1:-1] for text in quoted)):
        assert redactor(f"for <{form}>") == "for <(not shown)>"


def test_cut() -> None:
    """Pitfall 72: secrets are redacted before a text is cut, so that no part of one remains."""
    found = Redactor([VALUE])(f"{'x' * 590} {VALUE} {'y' * 100}")
    assert found == f"{'x' * 590} (not s..."


def test_a_long_text() -> None:
    """Redaction is fast even for adversarial text."""
    began = process_time()
    Redactor()("a?" * 100_000)
    assert process_time() - began < 5
