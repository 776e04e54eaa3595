"""The errors of any client become those of a sink."""

from __future__ import annotations

import asyncio
import email.message
import urllib.error
from types import SimpleNamespace
from typing import Any

import pytest

import kevents
from kevents import StatusError, UnavailableError

TOKEN = "s3cret-t0ken"
STATUS = (
    b'{"reason": "Forbidden", "message": "Bearer s3cret-t0ken may not", "details": {"causes": [{"reason": "Quota"}]}}'
)


class ClientError(Exception):
    """An error of a client, with the attributes that it is given."""

    def __init__(self, text: str = "m", **attributes: Any) -> None:
        super().__init__(text)
        self.__dict__.update(attributes)


class Hostile:
    """An answer whose attributes cannot be read, but for the status."""

    status_code = 503

    @property
    def content(self) -> bytes:
        """Raise."""
        raise RuntimeError("not read")

    request = headers = content


def raised(error: BaseException) -> BaseException:
    """The error that ``client_errors`` raises for an error."""
    with pytest.raises(BaseException) as caught, kevents.client_errors():  # noqa: PT011 - any is what the test is about
        raise error
    return caught.value


def answer(**attributes: Any) -> SimpleNamespace:
    """An answer as httpx has it."""
    request = SimpleNamespace(headers={"Authorization": f"Bearer {TOKEN}"})
    return SimpleNamespace(**{"request": request, "headers": {"Retry-After": "7"}, "content": STATUS, **attributes})


@pytest.mark.parametrize(
    "error",
    [
        ClientError(response=answer(status_code=403)),
        ClientError(status=403, body=STATUS.decode(), headers={"Retry-After": "7"}),
        ClientError(code=403, body=STATUS, headers={"Retry-After": "7"}),
    ],
    ids=["httpx, requests, lightkube, kr8s", "official client, aiohttp", "code"],
)
def test_answer(error: ClientError) -> None:
    """An error with the server's answer has all that the answer says, without the credentials of the request."""
    found = raised(error)
    assert isinstance(found, StatusError)
    assert (found.code, found.reason, found.causes, found.retry_after) == (403, "Forbidden", ("Quota",), 7.0)
    assert TOKEN not in f"{found!r} {found} {found.__dict__}"
    assert found.message.endswith(" may not")


def test_answer_of_an_earlier_error() -> None:
    """A client that fails while it reads a refusal is asked for the refusal."""
    error = ValueError("no JSON")
    error.__context__ = ClientError(response=answer(status_code=503, content=b"<html>"))
    error.__suppress_context__ = True
    found = raised(error)
    assert isinstance(found, StatusError)
    assert (found.code, found.reason) == (503, "")


def test_answer_that_cannot_be_read() -> None:
    """The status alone is enough."""
    found = raised(ClientError("the text", response=Hostile()))
    assert isinstance(found, StatusError)
    assert (found.code, found.message) == (503, "ClientError: the text")


def test_urllib() -> None:
    """An ``HTTPError`` of the standard library has the status."""
    headers = email.message.Message()
    headers["Retry-After"] = "3"
    with urllib.error.HTTPError("http://server", 429, "Too Many Requests", headers, None) as error:
        found = raised(error)
    assert isinstance(found, StatusError)
    assert (found.code, found.retry_after) == (429, 3.0)


@pytest.mark.parametrize(
    "error",
    [
        ClientError("refused"),
        ClientError("refused", status="Failure", code=True),
        OSError("refused"),
        KeyError("refused"),
    ],
    ids=["own class", "no status", "OSError", "KeyError"],
)
def test_no_answer(error: Exception) -> None:
    """Any other error means that the server did not answer."""
    found = raised(error)
    assert isinstance(found, UnavailableError)
    assert str(found).startswith(f"{type(error).__name__}: ")


@pytest.mark.parametrize(
    "error", [ValueError("v"), TypeError("t"), StatusError(404), UnavailableError("u"), KeyboardInterrupt()], ids=repr
)
def test_unchanged(error: BaseException) -> None:
    """Errors of a sink, and those of an event that cannot be sent, pass."""
    assert raised(error) is error


def test_coroutine() -> None:
    """The block may await; a cancelled request is cancelled."""

    async def send(seconds: float) -> None:
        with kevents.client_errors():
            await asyncio.sleep(seconds)
            raise ClientError("refused")

    async def main() -> list[Any]:
        task = asyncio.ensure_future(send(3600))
        await asyncio.sleep(0)
        task.cancel()
        return await asyncio.gather(send(0), task, return_exceptions=True)

    assert [type(error) for error in asyncio.run(main())] == [UnavailableError, asyncio.CancelledError]
