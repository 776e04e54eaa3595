"""The verbs on stored objects: create, read, change, delete."""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections.abc import Callable
from typing import Any, Final

from kevents._model.wire import format_time
from kevents.testing._apiserver.kinds import Kind
from kevents.testing._apiserver.options import (
    PRESENT,
    DeleteOptions,
    Page,
    check_list,
    check_version,
    check_write,
    is_dry_run,
    selector,
)
from kevents.testing._apiserver.patch import (
    APPLY,
    apply_configuration,
    apply_patch,
    check_patch_type,
    json_fault,
    parse_apply,
    parse_patch,
    patch_unreadable,
)
from kevents.testing._apiserver.requests import (
    APIError,
    Call,
    Cause,
    Reply,
    already_exists,
    bad_request,
    conflict,
    field_forbidden,
    field_immutable,
    forbidden,
    invalid,
    not_found,
    unsupported_media_type,
)
from kevents.testing._apiserver.schema import (
    META,
    DecodeError,
    metadata_causes,
    object_name_causes,
    validate_create,
    validate_update,
    without_zero_times,
)
from kevents.testing._apiserver.storage import CompactedError, ExistsError, Item, MissingError, Store

Object = dict[str, Any]

_MAX_OBJECT: Final = 1_572_864
_PREFIX: Final = 58
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_SYSTEM_NAMESPACES: Final = ("default", "kube-system", "kube-public")
_STATUS: Final[dict[str, Object]] = {
    "pods.": {"phase": "Pending"},
    "persistentvolumeclaims.": {"phase": "Pending"},
    "persistentvolumes.": {"phase": "Pending"},
    "services.": {"loadBalancer": {}},
}
_NOT_READY: Final = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
_NODE_INFO: Final = (
    "machineID systemUUID bootID kernelVersion osImage containerRuntimeVersion kubeletVersion kubeProxyVersion "
    "operatingSystem architecture"
)
_NODE_STATUS: Final[Object] = {
    "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
    "nodeInfo": dict.fromkeys(_NODE_INFO.split(), ""),
}
_KEPT: Final = (  # metadata that an update cannot change
    *("name", "namespace", "uid", "resourceVersion", "generation"),
    *("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
)


class Resources:
    """The verbs over a store."""

    def __init__(self, store: Store, *, finalize_namespaces: bool) -> None:
        self.store = store  # the objects
        self._finalize = finalize_namespaces  # else a deleted one stays `Terminating`, as without controllers
        self._applied: dict[tuple[str, str], Object] = {}  # the last configuration by uid and field manager

    def serve(self, call: Call) -> Reply:
        """Serve a request. Raises APIError if it is refused."""
        verbs: dict[str, Callable[[Call], Reply]] = {
            "create": self._create,
            "get": self._get,
            "list": self._list,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }
        try:
            return verbs[call.verb](call)
        except MissingError:
            raise not_found(call.kind.resource, call.kind.group, call.name) from None

    # Create

    def insert(self, kind: Kind, namespace: str, stored: Object, *, dry_run: bool = False) -> Object:
        """Create an object from its stored form, with all checks of a create, and return it. Raises APIError."""
        metadata = stored["metadata"]
        name = metadata.get("name", "")
        self._admit(kind, namespace, name)
        if not name and (prefix := metadata.get("generateName", "")):
            name = prefix[:_PREFIX] + "".join(random.choices(_ALPHABET, k=5))  # noqa: S311 - a name, no secret
        now = format_time(self.store.clock())
        filled = {**metadata, "name": name, "namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now}
        version = filled.pop("resourceVersion", None)
        filled.pop("selfLink", None)
        made = _defaulted(kind, {**stored, "metadata": _ordered(filled)})
        causes = object_name_causes(name, kind.name_rule) + metadata_causes(made["metadata"])
        _refuse_invalid(kind, name, causes if kind.struct is None else validate_create(made, kind.group, causes))
        if version is not None:
            raise APIError(500, "", "resourceVersion should not be set on objects to be created")
        _refuse_large(made)
        if kind.struct is not None:
            made = without_zero_times(made)

        def build(version: str) -> Object:
            return {**made, "metadata": _ordered({**made["metadata"], "resourceVersion": version})}

        try:
            return self.store.create(kind.bucket, namespace, name, build, dry_run=dry_run)
        except ExistsError:
            raise already_exists(kind.resource, kind.group, name) from None

    def _create(self, call: Call) -> Reply:
        unknown: list[str] = []
        check_write(call)
        stored = self._read_body(call, unknown)
        if _has_own_status(call.kind) and call.kind.bucket != "nodes.":
            stored.pop("status", None)
        made = self.insert(call.kind, call.namespace, stored, dry_run=is_dry_run(call))
        return Reply(call.kind, 201, (made,), warnings=_warnings(call, unknown))

    def _admit(self, kind: Kind, namespace: str, name: str) -> None:
        if not namespace:
            return
        try:
            found = self.store.get("namespaces.", "", namespace)
        except MissingError:
            raise not_found("namespaces", "", namespace) from None
        if "deletionTimestamp" in found["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = Cause("NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace")
            raise forbidden(kind.resource, kind.group, name, why, [cause])

    def _read_body(self, call: Call, unknown: list[str]) -> Object:
        kind, request = call.kind, call.request
        if request.media_type not in {"", "application/json"}:
            raise unsupported_media_type("application/json, application/yaml, application/vnd.kubernetes.protobuf")
        body = request.body
        if isinstance(body, bytes) or not request.raw:
            start = f"the object provided is unrecognized (must be of type {kind.kind}): couldn't get version/kind; "
            shown = request.raw[:100].decode(errors="replace") or "<empty>"
            raise bad_request(f"{start}json parse error: {json_fault(request.raw)} ({shown})")
        try:
            stored = kind.read(body, unknown)
            _refuse_unknown(call, unknown)
        except DecodeError as error:
            message = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {error}'
            raise bad_request(message) from None
        _same_namespace(stored, call)
        return stored

    # Read

    def _get(self, call: Call) -> Reply:
        return Reply(call.kind, 200, (self.store.get(call.kind.bucket, call.namespace, call.name),))

    def _list(self, call: Call) -> Reply:
        selects = selector(call.kind, call.query)
        check_list(call.query)
        page = Page.of(call.query)
        check_version(call.query.get("resourceVersion", ""), self.store.version)
        items, version = self._items(call, page)
        objects, metadata = page.cut(items, version, selects)
        return Reply(call.kind, 200, tuple(objects), metadata)

    def _items(self, call: Call, page: Page) -> tuple[list[Item], int]:
        if page.version is None or page.version == PRESENT:
            return self.store.items(call.kind.bucket, call.namespace)
        try:
            return self.store.items_at(call.kind.bucket, call.namespace, page.version), page.version
        except CompactedError:
            raise page.expired() from None

    # Change

    def _update(self, call: Call) -> Reply:
        unknown: list[str] = []
        check_write(call)
        stored = self._read_body(call, unknown)
        if not stored["metadata"].get("name"):
            text = f"the name of the object ({call.name} based on URL) was undeterminable: name must be provided"
            raise bad_request(text)
        _same_name(stored, call)
        kind, where, dry_run = call.kind, (call.kind.bucket, call.namespace, call.name), is_dry_run(call)
        try:
            made = self.store.modify(*where, lambda old: self._replaced(call, old, dict(stored)), dry_run=dry_run)
        except MissingError:
            if kind.struct is None:
                raise
            stored["metadata"].pop("resourceVersion", None)  # the version of a deleted event is no conflict
            made = self.insert(kind, call.namespace, stored, dry_run=dry_run)
            return Reply(kind, 201, (made,))
        return Reply(kind, 200, (made,), warnings=_warnings(call, unknown))

    def _replaced(self, call: Call, old: Object, new: Object) -> Object:
        if call.kind.custom and not new["metadata"].get("resourceVersion"):
            message = "Invalid value: 0: must be specified for an update"
            cause = Cause("FieldValueInvalid", message, "metadata.resourceVersion")
            raise invalid(call.kind.resource, call.name, [cause], call.kind.group)
        uid, found = new["metadata"].get("uid", ""), old["metadata"]["uid"]
        if uid and uid != found:
            key = "/".join(part for part in ("/registry", call.kind.resource, call.namespace, call.name) if part)
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"
            text = f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {why}"
            raise conflict(call.kind.resource, call.kind.group, call.name, text)
        return self._checked_update(call, old, new)

    def _patch(self, call: Call) -> Reply:
        content_type, where = call.request.media_type, (call.kind.bucket, call.namespace, call.name)
        check_patch_type(call.kind, content_type)
        check_write(call, apply=content_type == APPLY)
        if content_type == APPLY:
            return self._apply(call)
        self.store.get(*where)
        patch = parse_patch(call.request)
        unknown: list[str] = []

        def patched(old: Object) -> Object:
            view = apply_patch(call.kind.show(old), patch, content_type)
            if isinstance(view, dict) and not call.kind.custom:  # like the server: a patch cannot change the kind
                view |= {"kind": call.kind.kind, "apiVersion": call.kind.api_version}
            try:
                new = call.kind.read(view, unknown)
                _refuse_unknown(call, unknown)
            except DecodeError as error:
                raise patch_unreadable(patch, view, error, content_type) from None
            _same_name(new, call)
            _same_namespace(new, call)
            return self._checked_update(call, old, new)

        made = self.store.modify(*where, patched, dry_run=is_dry_run(call))
        return Reply(call.kind, 200, (made,), warnings=_warnings(call, unknown))

    def _apply(self, call: Call) -> Reply:
        kind, dry_run = call.kind, is_dry_run(call)
        config, manager = parse_apply(call.request, kind), call.query["fieldManager"]

        def applied(old: Object | None) -> Object:
            view = kind.show(old) if old else {}
            before = self._applied.get((old["metadata"]["uid"], manager), {}) if old else {}
            unknown: list[str] = []
            fault = ""
            try:
                new = kind.read(apply_configuration(view, before, config, custom=kind.custom), unknown)
            except DecodeError as error:
                fault = str(error)
            if fault or unknown:
                subject = f"{call.namespace}/{call.name}; {kind.group}/{kind.version}, Kind={kind.kind}"
                fault = fault or f".{unknown[0]}: field not declared in schema"
                raise APIError(500, "", f"failed to create typed patch object ({subject}): {fault}")
            _same_name(new, call)
            _same_namespace(new, call)
            return self._checked_update(call, old, new) if old else new

        status = 200
        try:
            made = self.store.modify(kind.bucket, call.namespace, call.name, applied, dry_run=dry_run)
        except MissingError:
            status, made = 201, self.insert(kind, call.namespace, applied(None), dry_run=dry_run)
        if not dry_run:
            self._applied[made["metadata"]["uid"], manager] = config
        return Reply(kind, status, (made,))

    def _checked_update(self, call: Call, old: Object, new: Object) -> Object:
        kind, before, after = call.kind, old["metadata"], new["metadata"]
        if _has_own_status(kind):
            rest, status = (old, new) if call.subresource else (new, old)
            new = {**rest, "metadata": after, "status": status.get("status", {})}
        if (version := after.get("resourceVersion")) and version != before["resourceVersion"]:
            raise conflict(kind.resource, kind.group, call.name)
        causes = []
        if after.get("uid", before["uid"]) != before["uid"]:
            causes.append(field_immutable("metadata.uid", after["uid"]))
        causes += _deletion_causes(before, after)
        kept = {key: before[key] for key in _KEPT if key in before}
        new = {**new, "metadata": _ordered({**after, **kept})}
        causes += metadata_causes(new["metadata"])
        if kind.struct is not None:
            causes += validate_update(new, old, kind.group)
        elif _body(new) != _body(old) and "generation" in before:
            new["metadata"]["generation"] = before["generation"] + 1
        _refuse_invalid(kind, call.name, causes)
        _refuse_large(new)
        return new if kind.struct is None else without_zero_times(new)

    # Delete

    def _delete(self, call: Call) -> Reply:
        kind, options = call.kind, DeleteOptions.of(call)
        old = self.store.get(kind.bucket, call.namespace, call.name)
        metadata = old["metadata"]
        if kind.bucket == "namespaces." and not self._finalize:
            if call.name in _SYSTEM_NAMESPACES:
                raise forbidden("namespaces", "", call.name, "this namespace may not be deleted")
            return Reply(kind, 200, (self.mark_deleted(kind, "", call.name, dry_run=options.dry_run),))
        options.check(call, metadata)
        if metadata.get("finalizers"):
            made = self.mark_deleted(kind, call.namespace, call.name, dry_run=options.dry_run)
            return Reply(kind, 200, (made,))
        if not options.dry_run:
            self.remove(kind, call.namespace, call.name)
        if kind.bucket == "pods.":
            return Reply(kind, 200, (old,))
        details = {"name": metadata["name"], "group": kind.group, "kind": kind.resource, "uid": metadata["uid"]}
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return Reply(kind, 200, body={**body, "details": {key: value for key, value in details.items() if value}})

    def _delete_collection(self, call: Call) -> Reply:
        dry_run = DeleteOptions.of(call).dry_run
        reply = self._list(call)
        for metadata in () if dry_run else [stored["metadata"] for stored in reply.objects]:
            where = metadata.get("namespace", ""), metadata["name"]
            if metadata.get("finalizers"):
                self.mark_deleted(call.kind, *where)
            else:
                self.store.delete(call.kind.bucket, *where)
        return reply

    def mark_deleted(self, kind: Kind, namespace: str, name: str, *, dry_run: bool = False) -> Object:
        """Mark an object as one that is being deleted, if it is not yet; a namespace becomes `Terminating`.

        Raises MissingError if there is no such object.
        """

        def marked(old: Object) -> Object:
            metadata = old["metadata"]
            if "deletionTimestamp" in metadata:
                return old
            marks: Object = {"deletionTimestamp": format_time(self.store.clock())}
            if kind.bucket == "namespaces.":
                return {**old, "metadata": _ordered({**metadata, **marks}), "status": {"phase": "Terminating"}}
            marks["deletionGracePeriodSeconds"] = 0
            if "generation" in metadata:
                marks["generation"] = metadata["generation"] + 1
            return {**old, "metadata": _ordered({**metadata, **marks})}

        return self.store.modify(kind.bucket, namespace, name, marked, dry_run=dry_run)

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """Remove an object, and with a namespace its content. Raises MissingError if there is no such object."""
        self.store.delete(kind.bucket, namespace, name)
        if kind.bucket == "namespaces.":
            self.store.empty(name)


def _ordered(metadata: Object) -> Object:
    return {key: value for key in META.fields if (value := metadata.get(key)) or value == 0}


def _defaulted(kind: Kind, stored: Object) -> Object:
    if kind.struct is not None:
        return stored
    if kind.bucket == "secrets.":
        texts = {key: base64.b64encode(text.encode()).decode() for key, text in stored.get("stringData", {}).items()}
        rest = {key: value for key, value in stored.items() if key != "stringData"}
        data = {**stored.get("data", {}), **texts}
        return {**rest, **({"data": data} if data else {}), "type": stored.get("type") or "Opaque"}
    if kind.bucket == "namespaces.":
        labels = {"kubernetes.io/metadata.name": stored["metadata"]["name"], **stored["metadata"].get("labels", {})}
        metadata = _ordered({**stored["metadata"], "labels": labels})
        return {"metadata": metadata, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    if kind.bucket == "nodes.":
        spec, status = stored.get("spec", {}), stored.get("status", {})
        taints = spec.get("taints", [])
        if all(taint.get("key") != _NOT_READY["key"] for taint in taints):
            taints = [*taints, _NOT_READY]
        return {**stored, "spec": {**spec, "taints": taints}, "status": {**_NODE_STATUS, **status}}
    made = dict(stored)
    if kind.has_generation:
        made["metadata"] = _ordered({**stored["metadata"], "generation": 1})
    if _has_own_status(kind):
        made.setdefault("status", _STATUS.get(kind.bucket, {}))
    return made


def _deletion_causes(before: Object, after: Object) -> list[Cause]:
    """Validate deletion marks: only a delete sets them, and then no finalizer may be added."""
    causes, was, now = [], before.get("deletionTimestamp"), after.get("deletionTimestamp")
    if now is not None and now != was:
        causes.append(field_immutable("metadata.deletionTimestamp", now))
    more = [name for name in after.get("finalizers", ()) if name not in before.get("finalizers", ())]
    if was is not None and more:
        why = "no new finalizers can be added if the object is being deleted, found new finalizers"
        texts = ", ".join(f'"{name}"' for name in more)
        causes.append(field_forbidden("metadata.finalizers", f"{why} []string{{{texts}}}"))
    return causes


def _refuse_invalid(kind: Kind, name: str, causes: list[Cause]) -> None:
    if causes:
        raise invalid(kind.kind, name, causes, kind.group if kind.custom else "")


def _refuse_large(stored: Object) -> None:
    message = stored.get("message", "")
    if isinstance(message, str) and len(message) < _MAX_OBJECT // 8:  # the other fields of an event are small
        return
    if len(json.dumps(stored, ensure_ascii=False).encode()) > _MAX_OBJECT:
        raise APIError(500, "", "etcdserver: request is too large")


def _body(stored: Object) -> Object:
    return {key: value for key, value in stored.items() if key not in {"metadata", "status"}}


def _refuse_unknown(call: Call, unknown: list[str]) -> None:
    if unknown and call.query.get("fieldValidation") == "Strict":
        raise DecodeError("strict decoding error: " + ", ".join(f'unknown field "{path}"' for path in unknown))


def _warnings(call: Call, unknown: list[str]) -> tuple[str, ...]:
    if call.query.get("fieldValidation") == "Ignore":
        return ()
    return tuple(f'unknown field "{path}"' for path in unknown)


def _has_own_status(kind: Kind) -> bool:
    """Whether the status changes through its subresource only; custom resources may have theirs either way."""
    return kind.has_status and not kind.custom


def _same_name(stored: Object, call: Call) -> None:
    if (name := stored["metadata"].get("name", "")) != call.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({call.name})")


def _same_namespace(stored: Object, call: Call) -> None:
    if stored["metadata"].get("namespace", call.namespace) != call.namespace and call.kind.namespaced:
        message = "the namespace of the provided object does not match the namespace sent on the request"
        raise bad_request(message)
