"""The options of a request besides its object: selectors, pages, `dryRun`, the preconditions of a delete."""

from __future__ import annotations

import base64
import binascii
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any, Final

from kevents.testing._apiserver.kinds import Kind
from kevents.testing._apiserver.patch import json_fault
from kevents.testing._apiserver.requests import (
    APIError,
    Call,
    Cause,
    bad_request,
    field_forbidden,
    field_required,
    field_unsupported,
    invalid,
    precondition_failed,
)
from kevents.testing._apiserver.schema import INT64, STRING, STRING_LIST, DecodeError, Struct, decode
from kevents.testing._apiserver.storage import Item

Object = dict[str, Any]

_TERM: Final = re.compile(r"([^=!]+)(!=|==|=)(.*)", re.DOTALL)
_SET: Final = re.compile(r"\s*(\S+)\s+(in|notin)\s*\(([^)]*)\)\s*\Z")
_KEY: Final = re.compile(r"\s*(!?)\s*([-A-Za-z0-9_./]+)\s*\Z")
_EQUAL: Final = re.compile(r"\s*([-A-Za-z0-9_./]+)\s*(!=|==|=)\s*([-A-Za-z0-9_.]*)\s*\Z")
_ORDER: Final = re.compile(r"\s*([-A-Za-z0-9_./]+)\s*([<>])\s*(\d+)\s*\Z")
_TWO_WORDS: Final = re.compile(r"\s*[-A-Za-z0-9_./]+\s+(\S+)")
_NUMBER: Final = re.compile(r"\d+\Z")
_COMMAS: Final = re.compile(r",(?![^(]*\))")
_UNESCAPED: Final = re.compile(r"(?<!\\),")


def selector(kind: Kind, query: Mapping[str, str]) -> Callable[[Object], bool] | None:
    """Parse the `fieldSelector` and the `labelSelector` of a request into a predicate for stored objects.

    None if all are selected. Raises APIError: 400 for a selector that cannot be parsed.
    """
    fields, labels = query.get("fieldSelector", ""), query.get("labelSelector", "")
    tests = [_field_test(kind, term) for term in _UNESCAPED.split(fields) if term] if fields else []
    tests += [_label_test(term) for term in _COMMAS.split(labels) if term.strip()] if labels else []
    if not tests:
        return None
    return lambda stored: all(test(stored) for test in tests)


def _field_test(kind: Kind, term: str) -> Callable[[Object], bool]:
    if (match := _TERM.match(term)) is None:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    name, operator, value = match[1], match[2], re.sub(r"\\([\\,=])", r"\1", match[3])
    common = name == "metadata.name" or (name == "metadata.namespace" and kind.namespaced)
    if name not in kind.field_labels and not common:
        raise bad_request(f"field label not supported: {name}")
    first, *rest = name.split(".")
    first = {"regarding": "involvedObject", "reportingController": "reportingComponent"}.get(first, first)
    wanted = operator != "!="
    return lambda stored: (_value(stored, [first, *rest]) == value) is wanted


def _value(stored: Object, path: list[str]) -> str:
    if path == ["source"]:
        component = stored.get("source", {}).get("component")
        return str(component or stored.get("reportingComponent", ""))
    value: object = stored
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _label_test(term: str) -> Callable[[Object], bool]:
    if match := _SET.match(term):
        values = {value.strip() for value in match[3].split(",")}
        key, within = match[1], match[2] == "in"
        return lambda stored: (_labels(stored).get(key) in values) is within
    if match := _KEY.match(term):
        key, present = match[2], not match[1]
        return lambda stored: (key in _labels(stored)) is present
    if match := _EQUAL.match(term):
        key, equal, value = match[1], match[2] != "!=", match[3]
        return lambda stored: (_labels(stored).get(key) == value) is equal
    if match := _ORDER.match(term):
        key, sign, limit = match[1], 1 if match[2] == ">" else -1, int(match[3])
        return lambda stored: _is_beyond(_labels(stored).get(key, ""), sign, limit)
    if match := _TWO_WORDS.match(term):
        raise bad_request(f"unable to parse requirement: found '{match[1]}', expected: in, notin, =, ==, !=, gt, lt")
    raise bad_request(f"unable to parse requirement: found '{term}', expected: identifier")


def _is_beyond(text: str, sign: int, limit: int) -> bool:
    return _NUMBER.match(text) is not None and (int(text) - limit) * sign > 0


def _labels(stored: Object) -> dict[str, str]:
    labels: dict[str, str] = stored["metadata"].get("labels", {})
    return labels


_MOST: Final = (1 << 63) - 1
PRESENT: Final = -1
"""The version of a list that continues with the current objects because its own version is compacted."""

_EXPIRED: Final = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list."""

    limit: int  # the number of items. 0 for all
    # the version of the list. None for the current one, `PRESENT` to continue with the current objects
    version: int | None = None
    after: tuple[str, str] | None = None  # the key of the last item of the previous page. None for the first page

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Page:
        """Parse `limit`, `continue`, `resourceVersion` and `resourceVersionMatch`. Raises APIError: 400."""
        limit = max(0, parse_int(query.get("limit", "")))
        token = query.get("continue", "")
        version = query.get("resourceVersion", "")
        if not token:
            match = query.get("resourceVersionMatch", "")
            # A limit without a match has always meant an exact version.
            exact = match == "Exact" or (not match and limit > 0 and version != "0")
            return cls(limit, int(version) if version.isdecimal() and exact else None)
        if version not in {"", "0"}:
            raise bad_request("specifying resource version is not allowed when using continue")
        try:
            found, namespace, name = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            return cls(limit, int(found), (str(namespace), str(name)))
        except (binascii.Error, ValueError, TypeError):
            raise bad_request("invalid continue token: continue key is not valid") from None

    def cut(
        self, items: list[Item], version: int, selects: Callable[[Object], bool] | None = None
    ) -> tuple[list[Object], Object]:
        """Return the objects of the page, and the metadata of the list.

        A page ends with its last selected object, so the last page of a list may be empty.
        """
        start = 0 if self.after is None else bisect_right(items, self.after, key=itemgetter(0))
        rest = range(start, len(items))
        fitting = rest if selects is None else (at for at in rest if selects(items[at][1]))
        page = list(islice(fitting, self.limit or None))
        metadata: Object = {"resourceVersion": str(version)}
        end = page[-1] + 1 if page and len(page) == self.limit else len(items)
        if end < len(items):
            metadata["continue"] = _token(version, items[end - 1][0])
            if selects is None:
                metadata["remainingItemCount"] = len(items) - end
        return [items[at][1] for at in page], metadata

    def expired(self) -> APIError:
        """410 for a compacted version, with a token that continues with the current objects."""
        if self.after is None:
            return APIError(410, "Expired", "The resourceVersion for the provided list is too old.")
        return APIError(410, "Expired", _EXPIRED, metadata={"continue": _token(PRESENT, self.after)})


def _token(version: int, after: tuple[str, str]) -> str:
    text = json.dumps([version, *after], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_int(text: str) -> int:
    """Parse an integer parameter; an empty one is 0. Raises APIError: 400."""
    try:
        number = int(text or "0")
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if number > _MOST:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def check_version(wanted: str, present: int) -> None:
    """Refuse a `resourceVersion` that is no number, or is in the future.

    Raises APIError: 400, or 504 like the real server after its wait.
    """
    if not wanted:
        return
    if not wanted.isdecimal():
        text = f'strconv.ParseUint: parsing "{wanted}": invalid syntax'
        raise bad_request(f'invalid resource version: resourceVersion: Invalid value: "{wanted}": {text}')
    if int(wanted) > present:
        cause = Cause("ResourceVersionTooLarge", "Too large resource version").as_dict()
        message = f"Timeout: Too large resource version: {wanted}, current: {present}"
        raise APIError(504, "Timeout", message, {"causes": [cause]})


def check_list(query: Mapping[str, str], *, watch: bool = False) -> None:
    """Raise APIError, 422, for a `resourceVersionMatch` that contradicts the other parameters of a list or a watch."""
    match, initial = query.get("resourceVersionMatch", ""), "sendInitialEvents" in query
    causes: list[Cause] = []
    if match or initial:
        causes = _watch_causes(match, initial=initial) if watch else _list_causes(match, query, initial=initial)
    if causes:
        raise invalid("ListOptions", "", causes, _META)


def _watch_causes(match: str, *, initial: bool) -> list[Cause]:
    if not initial:
        return [
            field_forbidden(_MATCH, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        ]
    if match == "NotOlderThan":
        return []
    causes = [field_forbidden(_MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")]
    return causes + ([field_unsupported(_MATCH, f'"{match}"', '"NotOlderThan"')] if match else [])


def _list_causes(match: str, query: Mapping[str, str], *, initial: bool) -> list[Cause]:
    if initial:
        return [field_forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")]
    version, causes = query.get("resourceVersion", ""), []
    if query.get("continue"):
        causes.append(field_forbidden(_MATCH, "resourceVersionMatch is forbidden when continue is provided"))
    if not version:
        causes.append(field_forbidden(_MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
    if match not in {"Exact", "NotOlderThan"}:
        causes.append(field_unsupported(_MATCH, f'"{match}"', '"Exact", "NotOlderThan", ""'))
    if match == "Exact" and version == "0":
        causes.append(field_forbidden(_MATCH, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    return causes


_MATCH: Final = "resourceVersionMatch"
_META: Final = "meta.k8s.io"
_OPTIONS: Final = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}
_POLICIES: Final = ("Foreground", "Background", "Orphan")
_MANAGER_BYTES: Final = 128
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
    """The options of a delete."""

    dry_run: bool  # whether nothing is deleted
    preconditions: Mapping[str, str]  # the `uid` and the `resourceVersion` that the object must have, as far as given

    @classmethod
    def of(cls, call: Call) -> DeleteOptions:
        """Parse the options in the body of a request or, without a body, in its query.

        Raises APIError: 400 for a body that is no JSON object, or has fields of the wrong type, 422 for a wrong value.
        """
        body = call.request.body
        if body is not None and not isinstance(body, dict):
            fault = json_fault(call.request.raw) or "json: cannot unmarshal into Go value"
            raise bad_request(f"couldn't get version/kind; json parse error: {fault}")
        if body is None:
            return cls(is_dry_run(call), {})
        try:
            given = decode(body, _DELETE, [])
        except DecodeError as error:
            raise bad_request(str(error)) from None
        dry_run = [_is_all(value, "DeleteOptions") for value in given.get("dryRun", ())]
        if (policy := given.get("propagationPolicy")) and policy not in _POLICIES:
            supported = ", ".join(f'"{name}"' for name in (*_POLICIES, "nil"))
            raise invalid(
                "DeleteOptions", "", [field_unsupported("propagationPolicy", f'"{policy}"', supported)], _META
            )
        return cls(any(dry_run), given.get("preconditions", {}))

    def check(self, call: Call, metadata: Object) -> None:
        """Refuse the delete if a precondition does not hold. Raises APIError: 409."""
        for key, name, fate in (
            ("uid", "UID", "deleted and then recreated"),
            ("resourceVersion", "ResourceVersion", "modified"),
        ):
            wanted, found = self.preconditions.get(key), metadata[key]
            if wanted is not None and wanted != found:
                why = f"the {name} in the precondition ({wanted}) does not match the {name} in record ({found})"
                group = call.kind.group if call.kind.custom else ""
                raise precondition_failed(call.kind.kind, group, call.name, why, fate)


def check_write(call: Call, *, apply: bool = False) -> None:
    """Raise APIError, 422, for a bad `fieldManager`, `fieldValidation` or `force` of a create, an update or a patch."""
    query, causes = call.query, []
    manager, validation = query.get("fieldManager", ""), query.get("fieldValidation", "")
    if apply and not manager:
        causes.append(field_required("fieldManager", "is required for apply patch"))
    if len(manager.encode()) > _MANAGER_BYTES:
        text = f"Too long: may not be more than {_MANAGER_BYTES} bytes"
        causes.append(Cause("FieldValueTooLong", text, "fieldManager"))
    if "force" in query and call.verb == "patch" and not apply:
        causes.append(field_forbidden("force", "may not be specified for non-apply patch"))
    if validation not in {"", "Ignore", "Strict", "Warn"}:
        causes.append(field_unsupported("fieldValidation", f'"{validation}"', '"", "Ignore", "Strict", "Warn"'))
    if causes:
        raise invalid(_OPTIONS[call.verb], "", causes, _META)


def is_dry_run(call: Call) -> bool:
    """Whether the request stores nothing. Raises APIError: 422 for a `dryRun` that is not `All`."""
    return "dryRun" in call.query and _is_all(call.query["dryRun"], _OPTIONS.get(call.verb, "DeleteOptions"))


def _is_all(value: object, kind: str) -> bool:
    if value != "All":
        raise invalid(kind, "", [field_unsupported("dryRun", f'["{value}"]', '"All"')], _META)
    return True
