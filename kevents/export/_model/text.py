"""Values as configurations and messages write them: quoted values, suggestions, durations, sizes, namespaces."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_BYTES: Final = {"B": 1, "kB": 10**3, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+", re.ASCII)
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_SIZE: Final = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)\s*([A-Za-z]+)", re.ASCII)
_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
KINDS: Final = {
    "ConfigMap": "cm",
    "CronJob": "cj",
    "CustomResourceDefinition": "crd",
    "DaemonSet": "ds",
    "Deployment": "deploy",
    "Endpoints": "ep",
    "HorizontalPodAutoscaler": "hpa",
    "Ingress": "ing",
    "Job": "job",
    "Lease": "lease",
    "Namespace": "ns",
    "NetworkPolicy": "netpol",
    "Node": "no",
    "PersistentVolume": "pv",
    "PersistentVolumeClaim": "pvc",
    "Pod": "po",
    "PodDisruptionBudget": "pdb",
    "ReplicaSet": "rs",
    "ReplicationController": "rc",
    "Secret": "secret",
    "Service": "svc",
    "ServiceAccount": "sa",
    "StatefulSet": "sts",
}
"""Common kinds, with the short names of kubectl."""
_MAX_DURATION: Final = 10**9  # thirty years; threads cannot wait longer than three hundred


def listed(names: Iterable[object]) -> str:
    """Return names as a text: ``"a", "b" or "c"``."""
    *most, last = [shown(name) for name in names] or [""]
    return f"{', '.join(most)} or {last}" if most else last


def shown(value: object) -> str:
    """Return a value as a configuration writes it: texts in double quotes, others in Python's form."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    try:
        return repr(value)
    except ValueError:  # Python refuses to show an integer of more than 4,300 digits
        return "a number of thousands of digits"


def did_you_mean(name: str, possible: Iterable[str]) -> str:
    """Return a suggestion as the end of a sentence, ``; did you mean "kind"?``; empty without a similar name."""
    names = {candidate.lower().replace("-", "_"): candidate for candidate in possible}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1, cutoff=0.7)
    return f"; did you mean {shown(names[found[0]])}?" if found else ""


def unknown(what: str, name: str, possible: Iterable[str], of: str = "") -> str:
    """Return the error text for an unknown name, with a similar name or all known ones."""
    candidates = list(possible)
    end = did_you_mean(name, candidates) or (f"; there are {listed(candidates)}" if candidates else "; there are none")
    return f"unknown {what} {shown(name)}{f' of {of}' if of else ''}{end}"


def namespace_problem(name: str) -> str:
    """Return why a text is not the name of a namespace, with the fix; empty if it is (a DNS-1123 label)."""
    if _LABEL.fullmatch(name):
        return ""
    if name in ("", "*"):
        fix = "leave it out for all namespaces"
    elif _LABEL.fullmatch(name.lower()):
        return f"{shown(name)} is no name of a namespace; did you mean {shown(name.lower())}?"
    elif "," in name:
        parts = ", ".join(shown(part.strip()) for part in name.split(","))
        fix = f"several are a list: [{parts}]"
    else:
        fix = 'a name has at most 63 lower-case letters, digits and "-"'
    return f"{shown(name)} is no name of a namespace: {fix}"


def duration(text: str) -> float:
    """Parse ``10s``, ``1h30m`` or ``7d``; return seconds. Raises ValueError if it is none, zero, or over 30 years."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"no duration: {text!r}")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if not 0 < seconds <= _MAX_DURATION:
        raise ValueError(f"a duration of {seconds} seconds")
    return seconds


def size(text: str) -> int:
    """Parse a size such as ``5MiB``, ``512kB`` or ``100B``; return bytes. Raises ValueError if it is none, or zero."""
    match = _SIZE.fullmatch(text)
    if not match or match[2] not in _BYTES or not (found := int(float(match[1]) * _BYTES[match[2]])):
        raise ValueError(f"no size: {text!r}")
    return found
