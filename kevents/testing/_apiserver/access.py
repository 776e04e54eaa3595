"""Who may do what: tokens, users, and the path of a request."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kevents.testing._apiserver.calls import Call
from kevents.testing._apiserver.http import decode_path
from kevents.testing._apiserver.status import APIError, forbidden, method_not_allowed, no_such_resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kevents.testing._apiserver.kinds import Kinds
    from kevents.testing._apiserver.requests import Incoming

__all__ = ["ALL_VERBS", "Access", "Target", "User", "authorize", "authorize_path", "call_for", "is_true", "target_of"]

ALL_VERBS: Final = frozenset({"*"})
_PUBLIC: Final = ("/healthz", "/livez", "/readyz", "/version")
_ITEM_VERBS: Final = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_COLLECTION_VERBS: Final = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
_OF_NAMESPACES: Final = ("finalize", "status")
_FALSE: Final = frozenset({"0", "false"})  # anything else is true to the server
_IN_A_NAMESPACE: Final = frozenset({"create", "deletecollection"})


@dataclass(frozen=True, slots=True)
class User:
    """A user and what they may do with all resources.

    Attributes:
        name: As the texts of refusals have it.
        verbs: The verbs allowed; `*` for all.
    """

    name: str
    verbs: frozenset[str]

    def may(self, verb: str) -> bool:
        """Tell whether the user is allowed the verb."""
        return verb in self.verbs or "*" in self.verbs


ANONYMOUS: Final = User("system:anonymous", frozenset())


class Access:
    """The tokens that the server knows."""

    def __init__(self, token: str) -> None:
        self._lock = threading.Lock()
        self._users = {token: User("admin", ALL_VERBS)}

    def add(self, token: str, name: str, verbs: Iterable[str]) -> None:
        """Let a token stand for a user; a token that is known gets the new name and verbs."""
        with self._lock:
            self._users = {**self._users, token: User(name, frozenset(verbs))}

    def remove(self, name: str) -> None:
        """Forget all tokens of a user."""
        with self._lock:
            self._users = {token: user for token, user in self._users.items() if user.name != name}

    def user(self, request: Incoming) -> User:
        """Give the user who makes a request; without a token it is nobody, who may do nothing.

        Raises:
            APIError: 401 for a token that is not known.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return ANONYMOUS
        if user := self._users.get(token.strip()):
            return user
        raise APIError(401, "Unauthorized", "Unauthorized")


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names, whether or not it exists."""

    group: str
    version: str
    resource: str
    namespace: str
    name: str
    subresource: str


def target_of(path: str) -> Target | None:
    """Read a path; None for one that names no resource."""
    match [decode_path(part) for part in path.strip("/").split("/")]:
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return None
    match rest:
        case ["namespaces", namespace, what, *more] if what not in _OF_NAMESPACES:
            rest = [what, *more]
        case _:
            namespace = ""
    resource, name, subresource, *more = [*rest, "", ""]
    return Target(group, version, resource, namespace, name, "/".join((subresource, *more)).rstrip("/"))


def is_true(query: Mapping[str, str], name: str) -> bool:
    """Tell whether a parameter of a query is given and says yes, as the server reads it."""
    return query.get(name, "false").lower() not in _FALSE


def verb_of(target: Target, request: Incoming) -> str:
    """Give the API's verb for a request; empty for a method that it does not have."""
    if target.name:
        return _ITEM_VERBS.get(request.method, "")
    verb = _COLLECTION_VERBS.get(request.method, "")
    return "watch" if verb == "list" and is_true(request.query, "watch") else verb


def authorize_path(user: User, path: str) -> None:
    """Refuse a path that names no resource to those who may not see it.

    Raises:
        APIError: 403.
    """
    if user is ANONYMOUS and not path.startswith(_PUBLIC):
        message = f'forbidden: User "{user.name}" cannot get path "{path}"'
        raise APIError(403, "Forbidden", message, {})


def authorize(target: Target, user: User, request: Incoming) -> None:
    """Refuse a request for a resource, whether or not there is one, to those who may not make it.

    Raises:
        APIError: 403.
    """
    verb = verb_of(target, request) or request.method.lower()
    if not user.may(verb):
        raise _refused(target, user, verb)


def call_for(target: Target, request: Incoming, kinds: Kinds) -> Call:
    """Give the call that a request makes.

    Raises:
        APIError: 404 or 405.
    """
    verb = verb_of(target, request)
    kind = kinds.find(target.group, target.version, target.resource)
    if kind is None or not (target.subresource == "" or (target.subresource == "status" and kind.has_status)):
        raise no_such_resource()
    if target.name and kind.namespaced and not target.namespace:
        raise no_such_resource()
    if not verb or (verb in _IN_A_NAMESPACE and kind.namespaced and not target.namespace):
        raise method_not_allowed()
    return Call(kind, verb, target.namespace, target.name, request.query, request)


def _refused(target: Target, user: User, verb: str) -> APIError:
    namespace = target.name if target.resource == "namespaces" else target.namespace
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    resource = f"{target.resource}/{target.subresource}" if target.subresource else target.resource
    why = f'User "{user.name}" cannot {verb} resource "{resource}" in API group "{target.group}" {where}'
    return forbidden(target.resource, target.group, target.name, why)
