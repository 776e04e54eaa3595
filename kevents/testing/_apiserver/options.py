"""The options that a request carries besides its object: dryRun, what a delete asks for, which list is meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.rules import json_fault
from kevents.testing._apiserver.schema import INT64, STRING, STRING_LIST, DecodeError, Struct, decode
from kevents.testing._apiserver.status import APIError, Cause, bad_request, conflict_of, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kevents.testing._apiserver.calls import Call

__all__ = ["DeleteOptions", "check_list", "delete_options", "is_dry_run"]

Object = dict[str, Any]

_META: Final = "meta.k8s.io"
_KINDS: Final = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}

_DELETE: Final = Struct(
    "DeleteOptions",
    {
        "kind": STRING,
        "apiVersion": STRING,
        "gracePeriodSeconds": INT64,
        "preconditions": Struct("Preconditions", {"uid": STRING, "resourceVersion": STRING}),
        "propagationPolicy": STRING,
        "dryRun": STRING_LIST,
    },
)


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """What a delete asks for.

    Attributes:
        dry_run: Whether nothing is to be deleted.
        preconditions: The uid and the resourceVersion that the object must have, each if it is given.
    """

    dry_run: bool
    preconditions: Mapping[str, str]

    def check(self, call: Call, metadata: Object) -> None:
        """Refuse the delete of an object that is another than the client knows.

        Raises:
            APIError: 409.
        """
        found = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        words = {"uid": ("UID", "deleted and then recreated"), "resourceVersion": ("ResourceVersion", "modified")}
        for key, (name, fate) in words.items():
            wanted = self.preconditions.get(key)
            if wanted is not None and wanted != found[key]:
                where = f"the {name} in the precondition ({wanted}) does not match the {name} in record ({found[key]})"
                raise conflict_of(call.kind.kind, call.kind.group if call.kind.custom else "", call.name, where, fate)


def is_dry_run(call: Call) -> bool:
    """Tell whether nothing is to be stored.

    Raises:
        APIError: 422 for a `dryRun` that is not `All`.
    """
    return "dryRun" in call.query and _all(call.query["dryRun"], _KINDS.get(call.verb, "DeleteOptions"))


def delete_options(call: Call) -> DeleteOptions:
    """Read what a delete asks for: in its body or, without one, in its query.

    Raises:
        APIError: 400 for a body that is no JSON object, or of another shape; 422 for a `dryRun` that is not `All`.
    """
    body = call.request.body
    if body is not None and not isinstance(body, dict):
        fault = json_fault(call.request.raw) or "json: cannot unmarshal into Go value"
        raise bad_request(f"couldn't get version/kind; json parse error: {fault}")
    if body is None:
        return DeleteOptions(is_dry_run(call), {})
    try:
        given = decode(body, _DELETE, [])
    except DecodeError as error:
        raise bad_request(str(error)) from None
    dry_run = [_all(value, "DeleteOptions") for value in given.get("dryRun", ())]
    return DeleteOptions(any(dry_run), given.get("preconditions", {}))


def _all(value: object, kind: str) -> bool:
    if value != "All":
        cause = Cause("FieldValueNotSupported", f'Unsupported value: ["{value}"]: supported values: "All"', "dryRun")
        raise _refused(kind, [cause])
    return True


def check_list(query: Mapping[str, str], *, watch: bool = False) -> None:
    """Refuse a list or a watch whose `resourceVersionMatch` does not go with the rest of its query.

    Raises:
        APIError: 422 with the causes.
    """
    match, initial = query.get("resourceVersionMatch", ""), "sendInitialEvents" in query
    causes: list[Cause] = []
    if match or initial:
        causes = _watch_causes(match, initial=initial) if watch else _list_causes(match, query, initial=initial)
    if causes:
        raise _refused("ListOptions", causes)


def _watch_causes(match: str, *, initial: bool) -> list[Cause]:
    if not initial:
        return [_forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")]
    if match == "NotOlderThan":
        return []
    causes = [_forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")]
    return causes + ([_unsupported(match, '"NotOlderThan"')] if match else [])


def _list_causes(match: str, query: Mapping[str, str], *, initial: bool) -> list[Cause]:
    if initial:
        return [_forbidden("sendInitialEvents is forbidden for list", "sendInitialEvents")]
    version, causes = query.get("resourceVersion", ""), []
    if query.get("continue"):
        causes.append(_forbidden("resourceVersionMatch is forbidden when continue is provided"))
    if not version:
        causes.append(_forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"))
    if match not in {"Exact", "NotOlderThan"}:
        causes.append(_unsupported(match, '"Exact", "NotOlderThan", ""'))
    if match == "Exact" and version == "0":
        causes.append(_forbidden('resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    return causes


def _forbidden(why: str, field: str = "resourceVersionMatch") -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", field)


def _unsupported(match: str, supported: str) -> Cause:
    text = f'Unsupported value: "{match}": supported values: {supported}'
    return Cause("FieldValueNotSupported", text, "resourceVersionMatch")


def _refused(kind: str, causes: list[Cause]) -> APIError:
    return invalid(kind, "", causes, _META)
