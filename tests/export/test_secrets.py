"""Secrets are named by reference, and told to nobody."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kevents.export._secrets import KNOWN, RedactingFormatter, Redaction, Secret, SecretError

VALUE = "hunter2/with+signs"


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is what the environment variable holds now, not what it held at the start."""
    secret = Secret(env="KEVENTS_TEST")
    monkeypatch.setenv("KEVENTS_TEST", "first-value")
    assert "first-value" == secret.reveal()
    monkeypatch.setenv("KEVENTS_TEST", "second-value")
    assert "second-value" == secret.reveal()


def test_file(tmp_path: Path) -> None:
    """A secret is what the file holds, without the line break at its end: a mounted one is renewed in place."""
    path = tmp_path / "token"
    path.write_bytes(b" spaces stay \r\n")
    assert " spaces stay " == Secret(file=str(path)).reveal()
    path.write_bytes(b"another")
    assert "another" == Secret(file=str(path)).reveal()


def test_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is not there is named by its place, with what to do."""
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
    """Pitfall 72: what a secret shows of itself is its place, also after it has been read."""
    monkeypatch.setenv("KEVENTS_TEST", VALUE)
    secret = Secret(env="KEVENTS_TEST")
    secret.reveal()
    assert "Secret(env='KEVENTS_TEST', file='')" == repr(secret)
    assert VALUE not in f"{secret}{secret!r}"


def test_redaction() -> None:
    """Pitfall 72: a value that has been read is taken out of texts, quoted for a URL too; a very short one is not."""
    redaction = Redaction()
    assert VALUE == redaction.clean(VALUE)
    redaction.remember(VALUE)
    redaction.remember("ab")
    expected = "a (not shown) b (not shown) c (not shown) ab"
    assert expected == redaction.clean(f"a {VALUE} b hunter2%2Fwith%2Bsigns c hunter2/with%2Bsigns ab")


def test_formatter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 72: a log line of whoever, and its traceback, go out without the secret."""
    monkeypatch.setenv("KEVENTS_TEST", VALUE)
    monkeypatch.setattr(KNOWN, "_values", ())
    Secret(env="KEVENTS_TEST").reveal()
    error = ValueError(f"refused {VALUE}")
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "header %s", (VALUE,), (ValueError, error, None))
    text = RedactingFormatter(logging.Formatter()).format(record)
    assert "header (not shown)\nValueError: refused (not shown)" == text
