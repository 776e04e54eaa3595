"""Names, labels and annotations: what the API server accepts."""

from __future__ import annotations

import re
from typing import Any, Final

from kevents.testing._apiserver.status import Cause, field_invalid, field_required

__all__ = ["metadata_causes", "object_name_causes", "qualified_name_faults"]

_QUALIFIED: Final = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_VALUE: Final = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z")
_LABEL_BYTES: Final = 63
_SUBDOMAIN_BYTES: Final = 253
_ANNOTATIONS_BYTES: Final = 262_144

_NAME_PART_TEXT: Final = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_TEXT: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_SUBDOMAIN_TEXT: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def qualified_name_faults(value: str) -> list[str]:
    """Tell what keeps `value` from being a qualified name such as a label key."""
    prefix, slash, name = value.rpartition("/")
    faults = []
    if slash and not prefix:
        faults.append("prefix part must be non-empty")
    elif slash and not _SUBDOMAIN.match(prefix):
        faults.append(f"prefix part {_SUBDOMAIN_TEXT}")
    if not name:
        faults.append("name part must be non-empty")
    elif len(name) > _LABEL_BYTES:
        faults.append(f"name part must be no more than {_LABEL_BYTES} bytes")
    if not _QUALIFIED.match(name):
        faults.append(_NAME_PART_TEXT)
    return faults


def path_segment_causes(name: str) -> list[Cause]:
    """Tell why a name cannot stand in a path: all that core/v1 asks of an event's name."""
    if name in {".", ".."}:
        return [field_invalid("metadata.name", name, f"may not be '{name}'")]
    return [field_invalid("metadata.name", name, f"may not contain '{char}'") for char in "/%" if char in name]


def object_name_causes(name: str, rule: str) -> list[Cause]:
    """Tell what is wrong with an object's name.

    Args:
        name: The name, empty when neither `name` nor `generateName` gave one.
        rule: `segment` for what fits into a path, `subdomain` for most kinds, `label` for namespaces.

    Returns:
        The causes; none for a good name.
    """
    if not name:
        return [field_required("metadata.name", "name or generateName is required")]
    if causes := path_segment_causes(name):
        return causes
    if rule == "segment":
        return []
    pattern, limit, text = (
        (_LABEL, _LABEL_BYTES, _LABEL_TEXT) if rule == "label" else (_SUBDOMAIN, _SUBDOMAIN_BYTES, _SUBDOMAIN_TEXT)
    )
    causes = []
    if len(name) > limit:
        causes.append(field_invalid("metadata.name", name, f"must be no more than {limit} characters"))
    if not pattern.match(name):
        causes.append(field_invalid("metadata.name", name, text))
    return causes


def metadata_causes(metadata: dict[str, Any]) -> list[Cause]:
    """Tell what is wrong with labels and annotations."""
    causes = []
    for key, value in metadata.get("labels", {}).items():
        causes += [field_invalid("metadata.labels", key, fault) for fault in qualified_name_faults(key)]
        if len(value) > _LABEL_BYTES:
            causes.append(field_invalid("metadata.labels", value, f"must be no more than {_LABEL_BYTES} bytes"))
        if not _VALUE.match(value):
            causes.append(field_invalid("metadata.labels", value, _VALUE_TEXT))
    annotations = metadata.get("annotations", {})
    for key in annotations:
        causes += [field_invalid("metadata.annotations", key, fault) for fault in qualified_name_faults(key.lower())]
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_BYTES:
        note = f"Too long: may not be more than {_ANNOTATIONS_BYTES} bytes"
        causes.append(Cause("FieldValueTooLong", note, "metadata.annotations"))
    return causes
