"""The public API: exported names, their signatures and docstrings, and the cost of an import."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import kevents
from kevents import testing

ROOT: Final = Path(__file__).parents[2]

CONSTANTS: Final = {"EVENT_TYPE_NORMAL", "EVENT_TYPE_WARNING"}
NAMES: Final = {
    *CONSTANTS,
    "BoundRecorder",
    "CoreV1EventSink",
    "CorrelatorOptions",
    "DropReason",
    "Event",
    "EventAggregator",
    "EventBroadcaster",
    "EventCorrelateResult",
    "EventCorrelator",
    "EventRecorder",
    "EventSink",
    "EventSource",
    "EventSourceObjectSpamFilter",
    "EventType",
    "InvalidEventError",
    "InvalidMessageError",
    "InvalidReferenceError",
    "InvalidTypeError",
    "KeventsError",
    "ObjectReference",
    "Recorder",
    "SinkError",
    "SinkStatistics",
    "Statistics",
    "StatusError",
    "UnavailableError",
    "Watcher",
    "WatcherStatistics",
    "client_errors",
    "default_host",
    "event_aggregator_by_reason_func",
    "event_aggregator_by_reason_message_func",
    "get_partial_reference",
    "get_recorder",
    "get_reference",
    "get_spam_key",
    "own_pod",
    "register",
    "shutdown",
    "spam_key_by_object_and_reason",
}

FIELDS: Final = "annotations=None, labels=None, related=None, action=None"
RECORDING: Final = {
    "event": f"self, object, eventtype, reason, message, *, {FIELDS}",
    "normal": f"self, object, reason, message, *, {FIELDS}",
    "warning": f"self, object, reason, message, *, {FIELDS}",
    "exception": "self, object, reason, error=None",
    "eventf": "self, object, eventtype, reason, message_fmt, *args",
    "annotated_eventf": "self, object, annotations, eventtype, reason, message_fmt, *args",
    "for_object": "self, object",
}
SIGNATURES: Final = {
    "client_errors": "",
    "ObjectReference": (
        "*, kind='', api_version='', namespace='', name='', uid='', resource_version='', field_path=''"
    ),
    "EventSource": "component='', host=''",
    "Event.from_dict": "body",
    "Event.to_dict": "self",
    "EventBroadcaster": (
        "*, correlator_options=None, sleep_duration=10.0, queue_length=10000, queue_bytes=67108864, clock=time_ns, "
        "strict=False, on_drop=None, max_message_bytes=None"
    ),
    "EventBroadcaster.start_recording_to_sink": (
        "self, sink, *, senders=4, backlog=4096, max_age=3600.0, retry_wait=None"
    ),
    "EventBroadcaster.start_logging": "self, logf",
    "EventBroadcaster.start_structured_logging": "self, level=20, *, logger=None",
    "EventBroadcaster.start_event_watcher": "self, handler",
    "EventBroadcaster.new_recorder": "self, source",
    "EventBroadcaster.shutdown": "self, timeout=5.0",
    "EventBroadcaster.flush": "self, timeout=None",
    "EventBroadcaster.statistics": "self",
    "Watcher.stop": "self, timeout=5.0",
    **{f"EventRecorder.{name}": signature for name, signature in RECORDING.items()},
    **{f"Recorder.{name}": signature for name, signature in RECORDING.items()},
    **{f"testing.FakeRecorder.{name}": signature for name, signature in RECORDING.items()},
    "EventRecorder.with_logger": "self, logger",
    "BoundRecorder.normal": f"self, reason, message, *, {FIELDS}",
    "BoundRecorder.warning": f"self, reason, message, *, {FIELDS}",
    "BoundRecorder.exception": "self, reason, error=None",
    "BoundRecorder.event": f"self, eventtype, reason, message, *, {FIELDS}",
    "BoundRecorder.eventf": "self, eventtype, reason, message_fmt, *args",
    "BoundRecorder.step": "self, name, message",
    "EventSink.create": "self, namespace, body, /",
    "EventSink.patch": "self, namespace, name, patch, /",
    "StatusError": "code, reason='', message='', causes=(), retry_after=None",
    "UnavailableError": "message='the API server is unavailable', *, retry_after=None",
    "CoreV1EventSink": "api=None, *, request_timeout=(5, 15)",
    "CoreV1EventSink.create": "self, namespace, body, /",
    "CoreV1EventSink.patch": "self, namespace, name, patch, /",
    "CoreV1EventSink.after_fork": "self",
    "CorrelatorOptions": (
        "*, lru_cache_size=4096, burst_size=25, qps=0.0033333333333333335, key_func=event_aggregator_by_reason_func, "
        "message_func=event_aggregator_by_reason_message_func, max_events=10, max_interval_in_seconds=600, "
        "count_identical=True, spam_key_func=get_spam_key, clock=monotonic_ns, catch_up=True"
    ),
    "event_aggregator_by_reason_func": "event",
    "event_aggregator_by_reason_message_func": "event",
    "get_spam_key": "event",
    "spam_key_by_object_and_reason": "event",
    "EventCorrelator": "options=None",
    "EventCorrelator.event_correlate": "self, event",
    "EventCorrelator.update_state": "self, event",
    "EventAggregator.event_aggregate": "self, event",
    "EventSourceObjectSpamFilter.filter": "self, event",
    "get_recorder": "source",
    "get_reference": "obj",
    "own_pod": "",
    "shutdown": "timeout=5.0",
    "get_partial_reference": "obj, field_path",
    "register": "cls, api_version, kind",
}

# Packages that a plain install lacks, or that only a sink needs.
NOT_LOADED: Final = {
    "aiohttp",
    "kopf",
    "kr8s",
    "kubernetes",
    "kubernetes_asyncio",
    "lightkube",
    "msgspec",
    "obstore",
    "opentelemetry",
    "prometheus_client",
    "pydantic",
    "pytest",
    "requests",
    "urllib3",
    "yaml",
}


def found(path: str) -> Any:
    """The object behind a dotted name in `kevents`."""
    thing: Any = {"testing": testing}.get(path.partition(".")[0], kevents)
    for name in path.removeprefix("testing.").split("."):
        thing = getattr(thing, name)
    return thing


def signature_of(thing: Callable[..., object]) -> str:
    """A signature without annotations. A default that is a function is shown by its name."""
    signature = inspect.signature(thing)
    parameters = []
    for parameter in signature.parameters.values():
        default = parameter.default
        if callable(default) and default is not parameter.empty:
            default = _Named(default.__name__)
        parameters.append(parameter.replace(annotation=parameter.empty, default=default))
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))[1:-1]


class _Named:
    """Its repr is a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def public(thing: object) -> list[str]:
    """The public names that a class defines itself."""
    return [name for name in vars(thing) if not name.startswith("_")]


# Names


def test_names() -> None:
    """Exactly the promised names are exported: constants, then classes, then functions, each group sorted."""
    expected = sorted(NAMES, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert kevents.__all__ == expected


def test_nothing_else_is_public() -> None:
    """Every public name in `kevents`, except modules, is in `__all__`."""
    seen = {name for name, value in vars(kevents).items() if name[0] != "_" and not isinstance(value, ModuleType)}
    assert seen == NAMES


def test_star() -> None:
    """A star import provides exactly the public names."""
    namespace: dict[str, object] = {}
    exec("from kevents import *", namespace)
    assert namespace.keys() - {"__builtins__"} == NAMES


def test_version() -> None:
    """The version has the form of a version."""
    assert kevents.__version__.split(".")[:2] == ["0", "1"]


def test_signatures() -> None:
    """Each public signature is unchanged."""
    assert {path: signature_of(found(path)) for path in SIGNATURES} == SIGNATURES


def test_event_attributes() -> None:
    """Events and the correlator's results have the promised attributes."""
    promised = {"reference", "type", "reason", "message", "source", "count", "name", "namespace", "annotations"}
    assert promised | {"labels", "from_dict", "to_dict"} <= set(public(kevents.Event))
    assert {"event", "patch", "skip"} <= set(public(kevents.EventCorrelateResult)) | set(
        getattr(kevents.EventCorrelateResult, "__slots__", ())
    )


def test_statistics() -> None:
    """The three ledgers have the promised fields."""
    sink = {"accepted", "spam_filtered", "delivered", "dropped", "backlog", "created", "patched", "merged", "retried"}
    sink |= {"recreated", "rejected_by_code", "aggregated", "fallbacks", "in_flight", "oldest_age", "server_available"}
    assert sink <= {field.name for field in fields(kevents.SinkStatistics)}
    watcher = {"offered", "queue_full", "shutdown", "handled", "failed", "waiting", "sink"}
    assert watcher <= {field.name for field in fields(kevents.WatcherStatistics)}
    assert {field.name for field in fields(kevents.Statistics)} == {
        "recorded",
        "refused",
        "no_watcher",
        "published",
        "watchers",
    }


def test_drop_reasons() -> None:
    """The drop reasons are a closed set of plain strings, for metrics."""
    expected = (
        "no_watcher invalid_reference invalid_type invalid_message recursion queue_full spam_filtered backlog_full "
        "rejected retries_exhausted expired handler_failed shutdown internal"
    )
    assert [str(reason) for reason in kevents.DropReason] == expected.split()


def test_errors() -> None:
    """Errors form one tree. Only errors of the caller are ValueErrors. Errors of a sink are SinkErrors."""
    errors = {name: value for name, value in vars(kevents).items() if name.endswith("Error")}
    assert all(issubclass(error, kevents.KeventsError) for error in errors.values())
    mistakes = {name for name, error in errors.items() if issubclass(error, ValueError)}
    assert mistakes == {"InvalidEventError", "InvalidMessageError", "InvalidReferenceError", "InvalidTypeError"}
    assert {name for name, error in errors.items() if issubclass(error, kevents.SinkError)} == {
        "SinkError",
        "StatusError",
        "UnavailableError",
    }


def test_protocols() -> None:
    """Real and fake recorders, and sinks, satisfy their protocols."""
    recorder = kevents.EventBroadcaster().new_recorder("c")
    assert isinstance(recorder, kevents.Recorder)
    assert isinstance(testing.FakeRecorder(), kevents.Recorder)
    assert issubclass(kevents.CoreV1EventSink, kevents.EventSink)


# Docstrings


def test_docstrings() -> None:
    """Each public class and function has a docstring that begins with a sentence."""
    first = {name: (inspect.getdoc(vars(kevents)[name]) or "").partition("\n")[0] for name in NAMES - CONSTANTS}
    assert {name: line for name, line in first.items() if not line.endswith((".", ")."))} == {}


def test_docstrings_of_methods() -> None:
    """Each public method and property has its own docstring."""
    described = {
        f"{name}.{key}": inspect.getdoc(value)
        for name in NAMES
        if isinstance(vars(kevents)[name], type)
        for key, value in vars(vars(kevents)[name]).items()
        if key[0] != "_" and _can_be_described(value)
    }
    assert len(described) > 40
    assert [name for name, text in described.items() if not text] == []


def _can_be_described(member: object) -> bool:
    return callable(member) or isinstance(member, property | classmethod | staticmethod)


# Imports


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules that `import kevents` loads in a new process."""
    script = (
        "import sys; before = set(sys.modules); import kevents, json; print(json.dumps([*set(sys.modules) - before]))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)} | set(json.loads(done.stdout))


def test_import_loads_no_optional_package(loaded: set[str]) -> None:
    """`import kevents` loads neither the official client and its dependencies nor any optional package."""
    assert loaded & NOT_LOADED == set()


def test_import_loads_its_dependencies_only(loaded: set[str]) -> None:
    """`import kevents` loads only cachetools, tenacity and their dependencies besides the standard library."""
    foreign = {name for name in loaded if "." not in name} - set(sys.stdlib_module_names)
    own = {"_missing_stdlib_info"}  # of Python 3.15
    assert foreign - own - {"tornado", "typing_extensions"} == {"kevents", "cachetools", "tenacity"}


def test_import_loads_no_optional_module(loaded: set[str]) -> None:
    """`import kevents` loads none of its optional public modules, such as the fakes, asyncio or the command line."""
    loaded_modules = {name for name in loaded if name.startswith("kevents.")}
    assert {name for name in loaded_modules if not name.startswith("kevents._")} == {"kevents.exceptions"}
    assert set() == {"kevents._cli.main", "kevents._cli.demo.main"} & loaded_modules


def test_modules_are_found() -> None:
    """After `import kevents` alone, its public modules are attributes; any other name is an ordinary error."""
    script = (
        "import kevents\n"
        "found = [kevents.aio.EventBroadcaster, kevents.events.SeriesEvent, kevents.log_handler.EventLogHandler]\n"
        "found += [kevents.testing.FakeRecorder, kevents.exceptions.StatusError]\n"
        "try: kevents.getLogger\n"
        "except AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("module 'kevents' has no attribute 'getLogger'\n", "")


def test_import_starts_nothing() -> None:
    """`import kevents` starts no thread, and prints and logs nothing."""
    script = "import threading, kevents; assert threading.active_count() == 1"
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_import_contracts() -> None:
    """The code follows the import contracts of `pyproject.toml`."""
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", script, "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
