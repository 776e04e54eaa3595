"""The README and the pages of ``docs`` are right: examples run, links resolve, figures are recomputed."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import kevents
from kevents import (
    CorrelatorOptions,
    DropReason,
    Event,
    EventBroadcaster,
    EventCorrelator,
    EventSource,
    ObjectReference,
)
from kevents._cli.main import main as command
from kevents._delivery.drop_reporter import ADVICE
from kevents.export._config.file import parse
from kevents.testing import APIServer, FakeSink
from tests import simulation
from tests.project.sources import IN_ONE_WORKER, parsed
from tests.support.programs import Programs
from tests.support.real_server import RealServer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
BESIDE = [ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")]
PAGES = [*BESIDE, *sorted((ROOT / "docs").glob("*.md"))]
NAMESPACE = {**vars(kevents), "time": time}
KUBECTL_COMMANDS = {"create", "describe", "events", "get", "label", "patch"}
TUTORIAL = re.compile(r"# \w+\.py\n")  # files that a reader saves: tests/e2e/test_tutorial_e2e.py follows them
COMMANDS = [
    ["pip", "install", "."],
    ["pip", "install", "-e", ".[test]"],
    ["pip", "install", "-e", ".[test,lint,docs]"],
    ["pip", "install", "kevents"],
    ["pip", "install", "pytest"],
    ["pytest"],
    ["pytest", "test_backups.py"],
]
Run = Callable[[str], subprocess.CompletedProcess[str]]
OTHER_CLIENTS = {"httpx", "kr8s", "lightkube", "pykube"}
PREAMBLE = 'import json, os; import tests.processes.patient; pod = json.loads(os.environ["POD"])\n'


def text_of(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """The text under a heading, up to the next heading of the same level."""
    return text_of(page).split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> Iterator[list[str]]:
    """The rows of the tables in a text, without their headers."""
    body = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if body and cells:
            yield cells
        body = bool(cells) and (body or set(cells) == {"---"})


def items(text: str) -> Iterator[tuple[str, str, str]]:
    """The items of a list of names: the name, the text in brackets after it, and the meaning."""
    yield from re.findall(r"^- `([^`]+)`(?: \((.*?)\))?: (.*)$", text, re.MULTILINE)


def spans(cell: str) -> list[str]:
    """The code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


@dataclass
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    code: str


def blocks(*languages: str) -> list[Any]:
    """The blocks of all pages in these languages, as pytest parameters."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```([^`\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            if match[1] in languages and not TUTORIAL.match(match[2]):
                block = Block(page, line, match[1], match[2])
                found.append(pytest.param(block, id=f"{page.name}:{line}"))
    return found


# -- examples --------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(api_server: APIServer, programs: Programs, tmp_path: Path) -> Run:
    """Runs an example in its own process. ``pod`` is an object that the API server holds."""

    def run(code: str) -> subprocess.CompletedProcess[str]:
        spec = {"containers": [{"name": "app", "image": "app:1"}]}
        pod = api_server.create("v1", "pods", {"metadata": {"name": "web-0", "namespace": "default"}, "spec": spec})
        path = tmp_path / "example.py"
        path.write_text(PREAMBLE + code.replace("timeout=10)", "timeout=100)"), encoding="utf-8")
        return programs.run(path, api_server.kubeconfig(), tmp_path, POD=json.dumps(pod))

    return run


@pytest.mark.parametrize("block", [block for block in blocks("python") if "analysis" not in str(block.id)])
def test_example(block: Block, api_server: APIServer, run: Run) -> None:
    """Each Python block runs by itself without a warning. With the official client it leaves events at the server."""
    if re.search(r"\baio\b", block.code):
        pytest.importorskip("kubernetes.aio", reason="this version of the client has no asyncio API")
    for name in OTHER_CLIENTS & set(re.findall(r"^(?:import|from) (\w+)", block.code, re.MULTILINE)):
        pytest.importorskip(name, reason="needs the extra test-clients")
    done = run(block.code)
    assert done.returncode == 0, done.stderr
    expected = re.compile(r"dropped an event about .*, invalid_type: ")
    lines = [line for line in done.stderr.splitlines() if not expected.match(line)]
    assert lines == []
    writes = (
        re.search(r"V1EventSink|get_recorder|(Lightkube|Pykube)Sink\(", block.code) is not None
        and "def test_" not in block.code
    )  # tests run in test_pytest_plugin
    assert bool(api_server.events()) == writes


def test_first_event(api_server: APIServer, run: Run) -> None:
    """The first example of the README creates exactly the event that the page describes."""
    first = next(param.values[0] for param in blocks("python") if param.values[0].page.name == "README.md")
    done = run(first.code)
    assert (done.returncode, done.stderr) == (0, "")
    [event] = api_server.events()
    expected = ("Warning", "BackupFailed", "the bucket is gone", 1, "backup-operator")
    assert (event["type"], event["reason"], event["message"], event["count"], event["source"]["component"]) == expected


@pytest.mark.e2e
def test_first_event_on_a_real_server(real_server: RealServer, tmp_path: Path) -> None:
    """The first program of the README, as it is, writes its event to a real API server."""
    first = next(param.values[0] for param in blocks("python") if param.values[0].page.name == "README.md")
    assert len([line for line in first.code.splitlines() if line]) == 3
    program = tmp_path / "program.py"
    program.write_text(first.code, encoding="utf-8")
    environment = {**os.environ, "KUBECONFIG": str(real_server.kubeconfig()), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    query = "fieldSelector=source=backup-operator,involvedObject.name=web-0,reason=BackupFailed"
    items = real_server.request("GET", f"/api/v1/namespaces/default/events?{query}").body["items"]
    assert "the bucket is gone" in {event["message"] for event in items}


def test_shown_output(api_server: APIServer, run: Run) -> None:
    """The second example of the README creates the rows that its kubectl output shows."""
    second = [param.values[0] for param in blocks("python") if param.values[0].page.name == "README.md"][1]
    assert run(second.code).returncode == 0
    shown = section("README.md", "What it looks like")
    for event in api_server.events():
        assert len(re.findall(rf"{event['type']} +{event['reason']} .*{event['message']}", shown)) == 2
        assert bool(re.search(rf"{event['reason']} +\d+s \(x3 over", shown)) == (event["count"] == 3)
    assert sorted(event["reason"] for event in api_server.events()) == ["BackupFailed", "BackupStarted"]


def test_landing_page(api_server: APIServer, run: Run) -> None:
    """The example of the landing page makes the one row that its output of kubectl shows."""
    first = next(param.values[0] for param in blocks("python") if param.values[0].page.name == "index.md")
    assert run(first.code).returncode == 0
    [event] = api_server.events()
    about = f"{event['type']} +{event['reason']} +configmap/{event['involvedObject']['name']} +"
    row = rf"{about}{event['source']['component']} +{event['message']} +\d+s +{event['count']} "
    assert re.search(row, text_of("docs/index.md"))


def test_sigterm_recipe(api_server: APIServer, run: Run) -> None:
    """With the recipe for SIGTERM, pending events are delivered on that signal."""
    [recipe] = [param.values[0] for param in blocks("python") if "SIGTERM" in param.values[0].code]
    done = run(recipe.code)
    assert (done.returncode, done.stderr) == (0, "")
    assert [event["reason"] for event in api_server.events()] == ["Started"]


def completed(code: str) -> str:
    """Complete a partial configuration: add sinks for its routes, or a route for its sinks."""
    tables = tomllib.loads(code)
    routes = tables.get("routes", [{"to": list(tables.get("sinks", {})) or "out"}])
    to = [route.get("to", []) for route in routes]
    ends = {name for names in to for name in ([names] if isinstance(names, str) else names)}
    sinks = "".join(f'\n[sinks.{name}]\ntype = "stdout"\n' for name in ends - set(tables.get("sinks", {})))
    end = "" if "routes" in tables else f"\n[[routes]]\nto = {json.dumps(sorted(ends))}\nall = true\n"
    return code + sinks + end


@pytest.mark.parametrize("block", blocks("toml"))
def test_configurations(block: Block) -> None:
    """`kevents check` accepts every configuration in the docs, including partial ones."""
    assert parse(completed(block.code)).sinks


@pytest.mark.parametrize("block", blocks("shell", "console"))
def test_commands(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands in the docs exist, with their options and extras."""
    lines = block.code.splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for part in [part.strip() for line in lines for part in line.split("&&")]:
        program, *arguments = part.replace('"', "").split()
        if program == "kubectl":
            assert arguments[0] in KUBECTL_COMMANDS
        elif program == "kind":
            assert arguments == ["create", "cluster"]
        elif program == "kevents":
            with pytest.raises(SystemExit) as ended:
                command([*arguments, "--help"])
            assert ended.value.code == 0
            told = capsys.readouterr().out
            assert [argument for argument in arguments if argument.startswith("--") and argument not in told] == []
        elif not TUTORIAL.search(f"# {arguments[0]}\n"):
            assert (program, arguments[0]) == ("python", "-m")
            assert arguments[1:] in COMMANDS


def test_modules_to_run() -> None:
    """The modules that the pages run with ``python -m`` exist."""
    for page in PAGES:
        for module in re.findall(r"`python -m (?!pip |pytest )([\w.]+)", page.read_text(encoding="utf-8")):
            found = [ROOT / f"{module.replace('.', '/')}.py", ROOT / module.replace(".", "/") / "__main__.py"]
            assert any(path.exists() for path in found), module


# -- links and citations ---------------------------------------------------------------------------------------------


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual viewers make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links() -> None:
    """Each relative link leads to an existing file and heading."""
    links = [
        (page, link) for page in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    ]
    for page, target in links:
        if target.startswith(("https://", "repository:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


@IN_ONE_WORKER
def test_cited_tests() -> None:
    """Each test that a page cites exists."""
    cited = [
        (page.name, file, names)
        for page in PAGES
        for file, names in re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", page.read_text(encoding="utf-8"))
    ]
    assert len(cited) > 100
    for page, file, names in cited:
        body = parsed(ROOT / file).body
        for name in names.split("::"):
            named = [n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name]
            assert len(named) == 1, f"{page}: {file}::{names}"
            body = named[0].body


def test_readme_names_every_page() -> None:
    """The README links every page of docs, or the file that the page includes."""
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"changelog.md", "contributing.md", "security.md"}
    assert pages - set(re.findall(r"\]\(docs/([\w-]+\.md)\)", text_of("README.md"))) == set()


def test_readme_names_every_extra() -> None:
    """The README lists exactly the extras in `all`, and `all` itself."""
    extras = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
    [together] = extras["all"]
    users = together.removeprefix("kevents[").removesuffix("]").split(",")
    assert [spans(cells[0])[0] for cells in rows(section("README.md", "Install"))] == [*users, "all"]


def test_number_of_traces() -> None:
    """The number of traces in the pages is the number of replayed traces."""
    traces = len(list((ROOT / "tests/traces/correlate").glob("*.json")))
    assert f"[{traces} recorded runs of client-go]" in text_of("README.md")
    assert f"all {traces} correlator traces" in text_of("docs/differences.md")


def test_no_machine() -> None:
    """No page holds a path of a development machine, or a leftover marker."""
    unwanted = re.compile(r"/(?:work|home|tmp|usr)/\w+|TODO|TEST\?|@@")
    assert [(page.name, text) for page in PAGES for text in unwanted.findall(page.read_text(encoding="utf-8"))] == []


# -- architecture ----------------------------------------------------------------------------------------------------


def test_modules_to_change() -> None:
    """The modules that the page about changes names exist, and contain the names beside them."""
    text = text_of("docs/changing.md")
    named = re.findall(r"`((?:\w+/)*\w+\.py)`(?:: ((?:`\w+`(?:, )?)+))?", text)
    assert len(named) > 15
    for path, names in named:
        module = ROOT / path if path.startswith(("tests/", "docs/")) else ROOT / "kevents" / path
        code = module.read_text(encoding="utf-8")
        assert [name for name in spans(names) if not re.search(rf"\b{name}\b", code)] == [], path


def test_packages() -> None:
    """The architecture page lists exactly the packages of the code."""
    listed = re.findall(r"^- `([\w/]+)`: ", section("docs/architecture.md", "Packages"), re.MULTILINE)
    code = ROOT / "kevents"
    expected = sorted(path.parent.relative_to(code).as_posix() for path in code.rglob("__init__.py"))
    assert sorted([".", *listed]) == expected


def test_picture_of_imports() -> None:
    """The import diagrams show the layers of the import contracts."""
    pictures = section("docs/architecture.md", "Packages").split("```")[1::2]
    drawn = [picture.strip().removeprefix("text\n").split("\n") for picture in pictures]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    assert drawn == [contract["layers"] for contract in contracts if contract["type"] == "layers"]


# -- options ---------------------------------------------------------------------------------------------------------


def start(**options: Any) -> object:
    """Start recording to a sink with these options, and stop."""
    with EventBroadcaster() as broadcaster:
        return broadcaster.start_recording_to_sink(**{"sink": FakeSink(), **options})


BUILDERS: dict[str, tuple[Callable[..., object], Callable[..., object]]] = {
    "EventBroadcaster": (EventBroadcaster, EventBroadcaster),
    "start_recording_to_sink": (EventBroadcaster.start_recording_to_sink, start),
    "CorrelatorOptions": (CorrelatorOptions, CorrelatorOptions),
    "CoreV1EventSink": (kevents.CoreV1EventSink, kevents.CoreV1EventSink),
}
OPTIONS = [
    pytest.param(heading, name, meaning, id=f"{heading}-{name}")
    for heading in BUILDERS
    for name, _, meaning in items(section("docs/options.md", heading))
]
NAN = float("nan")
INF = float("inf")
REFUSED: dict[str, tuple[Any, ...]] = {
    "correlator_options": ({}, 10),
    "sleep_duration": (0, -1.0, True, "10", NAN, INF),
    "queue_length": (0, 1.5, True),
    "queue_bytes": (0, 1.5, True),
    "EventBroadcaster-clock": (0,),
    "strict": (),
    "on_drop": ("log", 1),
    "max_message_bytes": (0, -1, 1.5, True),
    "sink": ("https://example.com",),
    "senders": (0, 2.0, True),
    "backlog": (0, 1.5),
    "max_age": (0, -1, INF),
    "retry_wait": (),
    "lru_cache_size": (0, -1, 4096.0, True),
    "burst_size": (0, -1, True, "25"),
    "qps": (0, -1, True, NAN, INF),
    "key_func": ("reason",),
    "message_func": ("many",),
    "max_events": (0, -1, 2.5, True),
    "max_interval_in_seconds": (0, -1, True, NAN),
    "count_identical": (0,),
    "spam_key_func": ("reason",),
    "CorrelatorOptions-clock": (1,),
    "catch_up": (0,),
    "api": (1, "https://example.com"),
    "request_timeout": (5, (5,), (0, 15), (5, -1), [5, 15]),
}


@pytest.mark.parametrize("heading", BUILDERS)
def test_option_defaults(heading: str) -> None:
    """Each option of a signature is listed in order, with its real default."""
    parameters = [p for p in inspect.signature(BUILDERS[heading][0]).parameters.values() if p.name != "self"]
    expected = [(p.name, p.default) for p in parameters]
    empty = inspect.Parameter.empty
    listed = [
        (name, eval(spans(default)[0], dict(NAMESPACE)) if default else empty)
        for name, default, _ in items(section("docs/options.md", heading))
    ]
    assert listed == expected


@pytest.mark.parametrize(("heading", "name", "meaning"), OPTIONS)
def test_option_refused(heading: str, name: str, meaning: str) -> None:
    """A value outside an option's range raises as soon as it is given."""
    values = REFUSED[name] if name in REFUSED else REFUSED[f"{heading}-{name}"]
    assert values or "at least" not in meaning
    for value in values:
        with pytest.raises(TypeError if name in {"sink", "api"} else ValueError):
            BUILDERS[heading][1](**{name: value})


@pytest.mark.parametrize(("heading", "name", "meaning"), OPTIONS)
def test_option_none(heading: str, name: str, meaning: str) -> None:
    """None is legal where the page gives it a meaning, and refused everywhere else."""
    build = BUILDERS[heading][1]
    if " `None`: " in meaning:
        build(**{name: None})
    else:
        with pytest.raises((ValueError, TypeError)):
            build(**{name: None})


@pytest.mark.parametrize("name", ["flush", "shutdown", "stop"])
def test_timeouts_of_calls(name: str) -> None:
    """The listed timeouts of calls are the defaults of their signatures."""
    call = getattr(kevents.Watcher if name == "stop" else EventBroadcaster, name)
    [default] = [cells[1] for cells in rows(section("docs/options.md", "Timeouts of calls")) if f".{name}(" in cells[0]]
    assert inspect.signature(call).parameters["timeout"].default == eval(spans(default)[0])


def test_default_burst() -> None:
    """Each page that states the default burst states the real one."""
    pages = [*PAGES, ROOT / "examples/kopf/README.md"]
    sentence = re.compile(
        r"(?:\b(\d+) (?:events )?(?:at once|for an object|about one object)|stops at (\d+)|After (\d+) events)"
    )
    stated = {page.name: sentence.search(page.read_text(encoding="utf-8")) for page in pages}
    found = {name: int(next(filter(None, match.groups()))) for name, match in stated.items() if match}
    assert len(found) >= 7
    assert {name for name, burst in found.items() if burst != CorrelatorOptions().burst_size} == set()


def sent(options: CorrelatorOptions, reasons: str) -> tuple[int, int, int, list[int]]:
    """Correlate twelve messages five times with a stopped clock. Returns creates, patches, skips and counts."""
    correlator = EventCorrelator(replace(options, clock=lambda: 0))
    reference = ObjectReference(kind="Pod", api_version="v1", namespace="default", name="web-0", uid="u")
    creates = patches = skips = 0
    counts: dict[str, int] = {}
    for number in range(60):
        event = Event(
            reference=reference,
            type="Warning",
            reason=reasons[number % len(reasons)],
            message=f"message {number % 12}",
            source=EventSource("operator"),
            time=0,
            serial=number + 1,
        )
        result = correlator.event_correlate(event)
        skips += result.skip
        creates += result.event is not None and result.patch is None
        patches += result.patch is not None
        if result.event is not None:
            counts[result.event.name] = result.event.count
    return creates, patches, skips, sorted(counts.values(), reverse=True)


def expanded(counts: str) -> list[int]:
    """Expand ``6, 3, 8 x 2``."""
    written = []
    for part in counts.split(", "):
        times, _, count = part.rpartition(" x ")
        written += [int(count)] * int(times or 1)
    return written


@pytest.mark.parametrize(
    "cells", list(rows(section("docs/options.md", "Which events count as the same"))), ids=lambda cells: cells[0]
)
def test_recipes(cells: list[str]) -> None:
    """The correlator produces the numbers of each recipe."""
    wish, options, creates, patches, skips, counts = cells
    reasons = "AB" if wish.endswith("two reasons") else "A"
    expected = int(creates), int(patches), int(skips), expanded(counts)
    assert sent(eval(spans(options)[0], dict(NAMESPACE)), reasons) == expected


# -- reliability -----------------------------------------------------------------------------------------------------


def test_drop_reasons() -> None:
    """Every drop reason is explained, in the order of the code and with the advice of the code."""
    listed = [
        (cells[0].strip("`"), cells[2]) for cells in rows(section("docs/reliability.md", "Why an event is dropped"))
    ]
    assert listed == [(reason.value, ADVICE[reason]) for reason in DropReason]


def test_log_lines() -> None:
    """The listed log lines begin like those in the code."""
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "kevents").rglob("*.py"))
    lines = [begins for begins, _, _ in items(section("docs/reliability.md", "Log lines"))]
    assert len(lines) > 10
    for begins in lines:
        if not begins.startswith("dropped an event"):
            assert begins.removeprefix("... ") in code


def test_fields_of_the_ledgers() -> None:
    """The listed sums consist of fields of the statistics, and hold."""
    with EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(FakeSink())
        recorder = broadcaster.new_recorder("operator")
        for _ in range(40):
            recorder.event(ObjectReference(kind="Pod", name="web-0"), "Normal", "Started", "it runs")
        recorder.event(None, "Normal", "Started", "about nothing")
        assert broadcaster.flush(10)
        statistics = broadcaster.statistics()
    ledgers = [statistics, statistics.watchers[0], statistics.watchers[0].sink]
    sums = [spans(cells[1])[0] for cells in rows(section("docs/reliability.md", "Statistics")) if "=" in cells[1]]
    assert len(sums) == len(ledgers)
    for ledger, equation in zip(ledgers, sums, strict=True):
        fields = {name: getattr(ledger, name) for name in type(ledger).__slots__} | {"sum": sum}
        left, right = equation.split(" = ")
        assert eval(right, fields) == eval(left, fields), equation


@pytest.mark.slow  # computes every scenario again
def test_simulation(capsys: pytest.CaptureFixture[str]) -> None:
    """Each row of the table of simulated outages is one that the simulation prints."""
    simulation.main()
    printed = capsys.readouterr().out.splitlines()
    shown = [line for line in section("docs/reliability.md", "Simulated outages").splitlines() if line.startswith("|")]
    assert len(shown) > 2
    assert [line for line in shown if line not in printed] == []
