"""Requests through the asynchronous client that the user gave: ``kubernetes.aio`` or ``kubernetes_asyncio``."""

from __future__ import annotations

import importlib
import inspect
import sys
from contextlib import suppress
from copy import copy
from functools import lru_cache, partial
from typing import Any

from kevents._clients.aio import Connection, Transport, in_loop
from kevents._clients.client import comes_from, other_api, package_of
from kevents._clients.endpoint import ASYNCHRONOUS
from kevents._clients.errors import format_redacted
from kevents._clients.sync import APIS, CONTENT_TYPES
from kevents._model.objects import Json
from kevents._runtime.aio import run_in_thread
from kevents.exceptions import UnavailableError


class ClientTransport(Transport):
    """Sends requests through a given client: an api or ``ApiClient`` of ``kubernetes.aio`` or ``kubernetes_asyncio``.

    Or through what a callable or coroutine function returns. kevents closes only clients that a callable made.
    ``timeout``: seconds to connect, to wait for the next bytes, and for all of the request. Raises TypeError.
    """

    def __init__(self, given: object, api_group: str, timeout: tuple[float, float, float]) -> None:
        super().__init__()
        self._given = given
        self._kind = APIS[api_group]
        self._timeout = timeout
        self._package = package_of(given)
        self._prepared = ""
        self.renewable = not self._is_client(given)
        if trouble := self._trouble(given, legal=callable(given)):
            raise TypeError(
                f"api must be a {self._kind.name} or ApiClient of kubernetes.aio or kubernetes_asyncio, or a callable "
                f"that returns one, {trouble}"
            )
        if self._package and not in_loop():
            self._prepare(self._package)

    def _prepare(self, package: str) -> None:
        """Import the package outside the loop, because that takes up to a second.

        The client 37 also imports its parts at their first use and builds models at the first request. A request with
        an invalid argument triggers both without sending anything.
        """
        client = importlib.import_module(f"{package}.client")
        importlib.import_module(f"{package}.config")
        for name in ("ApiClient", "ApiException", "Configuration", self._kind.name, self._kind.model):
            getattr(client, name)
        api = getattr(client, self._kind.name)
        for method in ("create_namespaced_event", "patch_namespaced_event"):
            unread = getattr(api, f"{method}_without_preload_content", None)
            if unread is not None:
                with suppress(Exception):
                    unread(None).send(None)
        self._prepared = package

    # -- connecting ------------------------------------------------------------------------------------------------

    async def _make(self) -> Connection:
        given = self._given
        await self._import(self._package or _imported())
        if self.renewable:
            given = await self._called()
            await self._import(package_of(given))
        api = self._api_over(given)
        return Connection(api, (lambda: getattr(api, "api_client", api).close()) if self.renewable else None)

    async def _import(self, package: str) -> None:
        if package and package != self._prepared:
            with suppress(Exception):  # the import that needs it raises again
                await run_in_thread("kevents-import", partial(self._prepare, package))

    def _api_over(self, client: Any) -> Any:  # noqa: ANN401
        if hasattr(client, "create_namespaced_event"):
            return client
        return getattr(importlib.import_module(f"{package_of(client)}.client"), self._kind.name)(client)

    async def _called(self) -> object:
        given: Any = self._given
        try:
            made = given()
            if inspect.isawaitable(made):
                made = await made
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - there are no credentials yet, whatever the error
            raise UnavailableError(f"the callable given as api raised {format_redacted(error)}") from None
        if trouble := self._trouble(made, legal=False):
            raise UnavailableError(
                f"the callable given as api must return a {self._kind.name} or ApiClient of kubernetes.aio or "
                f"kubernetes_asyncio, {trouble}"
            )
        return made

    def _is_client(self, thing: object) -> bool:
        if isinstance(thing, type):
            return False
        is_api = hasattr(thing, "create_namespaced_event")
        return is_api or (bool(package_of(thing)) and hasattr(thing, "rest_client"))

    def _trouble(self, thing: object, *, legal: bool) -> str:
        """Return why an object is no api, empty if it is one."""
        if comes_from(thing, "kubernetes") and not package_of(thing):
            return f"not a synchronous one: use {self._kind.sink}"
        if other := other_api(thing, self._kind):
            return other
        return "" if legal or self._is_client(thing) else f"not {type(thing).__module__}.{type(thing).__qualname__}"

    # -- sending ---------------------------------------------------------------------------------------------------

    async def _request(self, api: Any, method: str, namespace: str, name: str, body: Json) -> Any:  # noqa: ANN401
        guarded = self._guarded(api)
        if method == "POST":
            return await self._call(guarded, "create_namespaced_event")(namespace, body)
        patch = self._call(guarded, "patch_namespaced_event")
        return await patch(name, namespace, body, _content_type=CONTENT_TYPES[method])

    def _call(self, api: Any, method: str) -> Any:  # noqa: ANN401
        """Return a method of any of the packages that leaves the response unread and keeps the time-outs."""
        unread = getattr(api, f"{method}_without_preload_content", None)
        if unread is not None:
            return partial(unread, _request_timeout=self._timeout[2])
        return partial(getattr(api, method), _preload_content=False, _request_timeout=self._timeout[:2])

    def _guarded(self, api: Any) -> Any:  # noqa: ANN401
        """Return a shallow copy of an api that keeps the deadline and follows no redirect; a test double unchanged.

        The copy is made for each request, so that later changes of the user's client count.
        """
        rest: Any = getattr(getattr(api, "api_client", None), "rest_client", None)
        if not package_of(rest) or not hasattr(rest, "pool_manager"):
            return api
        guarded_rest = object.__new__(_guarded_class(type(rest)))  # type: ignore[arg-type] # the original keeps the session
        guarded_rest.__dict__.update(rest.__dict__, kevents_original=rest, kevents_timeout=self._timeout)
        guarded = copy(api)
        guarded.api_client = copy(api.api_client)
        guarded.api_client.rest_client = guarded_rest
        return guarded


def _imported() -> str:
    """The package that the process has already imported, empty for none."""
    return next((package for package in ASYNCHRONOUS if f"{package}.client" in sys.modules), "")


@lru_cache(maxsize=16)
def _guarded_class(base: type) -> Any:  # noqa: ANN401
    class Guarded(base):  # type: ignore[misc]
        @property
        def pool_manager(self) -> object:
            session = self.kevents_original.pool_manager
            return None if session is None else _Session(session, self.kevents_timeout)

        @pool_manager.setter
        def pool_manager(self, session: object) -> None:  # kubernetes.aio makes its session at the first request
            self.kevents_original.pool_manager = session

    return Guarded


class _Session:
    """Sends the requests of a client's REST layer, in place of its aiohttp session."""

    def __init__(self, session: Any, timeout: tuple[float, float, float]) -> None:  # noqa: ANN401
        self._session = session
        connect, read, total = timeout
        self._timeouts = {"total": total, "sock_connect": connect, "sock_read": read}

    async def request(self, **options: Any) -> Any:  # noqa: ANN401
        """Send a request that follows no redirect, ends in time and is not decompressed without a limit."""
        import aiohttp  # noqa: PLC0415 - the client has imported it

        options["timeout"] = aiohttp.ClientTimeout(**self._timeouts)
        options["headers"] = {**options.get("headers", {}), "Accept-Encoding": "identity"}
        return await self._session.request(**options, allow_redirects=False, auto_decompress=False)
