"""Mutation tests: measure whether the tests of a pure module find mistakes: ``python -m tests.quality.mutants``.

Each mutant runs in a forked child that imports the changed module through an import hook. No file is changed, and a
mutant takes a fraction of a second. Run by hand, on Linux, with ``pip install cosmic-ray``.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import pytest

from tests.quality.mutation import Mutant, mutants

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

MODULES: Final = {
    "_correlation/correlator": (
        "correlation/test_correlator", "correlation/test_token_bucket", "correlation/test_parity",
        "correlation/test_options",
        "correlation/test_lru",
    ),
    "_queue/circuit_breaker": ("queue/test_circuit_breaker", "queue/test_workqueue"),
    "_queue/outcome": ("queue/test_outcome",),
    "_queue/work_item": ("queue/test_work_item", "queue/test_delay_queue", "queue/test_workqueue"),
    "_queue/workqueue": ("queue/test_workqueue",),
    "_model/objects": ("model/test_objects", "model/test_wire", "correlation/test_series"),
    "_model/reference": ("model/test_reference", "model/test_reference_clients"),
    "export/_model/position": ("export/model/test_position",),
}  # fmt: skip
"""Each module and its tests, those that find the most mutants at the least cost first."""
LAWS: Final = ("test_laws", "test_simulation")
"""More tests of the work queue, many times slower: for mutants that survive the others (``--laws``)."""
_SECONDS: Final = 20
_TIMEOUT: Final = 100
_SLOW: Final = "not table_is"
_OPTIONS: Final = (
    "-x",
    "-q",
    "-p",
    "pytest_timeout",
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
    "-k",
    _SLOW,
)


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Replaces the source of one module.

    Args:
        name: The name of the module.
        path: Its file, for tracebacks.
        text: The new source.
    """

    def __init__(self, name: str, path: Path, text: str) -> None:
        self._name, self._path, self._text = name, path, text

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        """Load the module from the new source; leave all others to the usual loader."""
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)  # type: ignore[arg-type]

    def exec_module(self, module: ModuleType) -> None:
        """Run the new source."""
        exec(compile(self._text, str(self._path), "exec"), module.__dict__)


def ends_well(module: str, text: str, tests: Sequence[str], log: Path) -> bool:
    """Whether tests pass with this source in place of a module's."""
    child = os.fork()
    if child == 0:
        _be_tested(module, text, tests, log)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(_TIMEOUT)
    _, status = os.waitpid(child, 0)
    signal.alarm(0)
    return status == 0


def _be_tested(module: str, text: str, tests: Sequence[str], log: Path) -> NoReturn:
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        name = "kevents." + module.replace("/", ".")
        sys.meta_path.insert(0, Changed(name, path_of(module), text))
        importlib.import_module(name)
        code = pytest.main([*_OPTIONS, *(f"tests/{test}.py" for test in tests)])
        sys.stdout.flush()
        os._exit(code)
    except BaseException:  # noqa: BLE001 - a child must not continue as its parent
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)


def path_of(module: str) -> Path:
    """The file of a module."""
    return Path(f"kevents/{module}.py")


def difference(module: str, mutant: Mutant) -> str:
    """The changed lines, with - and +."""
    before = path_of(module).read_text(encoding="utf-8").splitlines()
    lines = list(difflib.unified_diff(before, mutant.text.splitlines(), lineterm="", n=0))
    return "\n".join(line for line in lines[2:] if not line.startswith("@@"))


def measure(module: str, out: Path, *, again: bool, laws: bool) -> None:
    """Run all mutants of a module that are not in the record yet, and print each survivor.

    Args:
        module: The module.
        out: The folder of the record.
        again: Run earlier survivors once more.
        laws: Also run the laws of the whole work queue.
    """
    record = out / f"{module.replace('/', '.')}.json"
    log = out / f"{module.replace('/', '.')}.log"
    before: dict[str, bool] = json.loads(record.read_text()) if record.exists() else {}
    known: dict[str, bool] = {}
    tests = (*MODULES[module], *LAWS) if laws else MODULES[module]
    if not ends_well(module, path_of(module).read_text(encoding="utf-8"), tests, log):
        raise SystemExit(f"the tests of {module} fail without a mutant: see {log}")
    for mutant in mutants(path_of(module)):
        name = f"{mutant.name} in line {mutant.line}: {difference(module, mutant)}"
        known[name] = before.get(name, True)
        if name not in before or (again and known[name]):
            known[name] = ends_well(module, mutant.text, tests, log)
            record.write_text(json.dumps({**before, **known}, indent=1))
        if known[name]:
            _say(f"{module}.py survived {name}")
    record.write_text(json.dumps(known, indent=1))
    survived = sum(known.values())
    _say(f"== {module}: {len(known)} mutants, {survived} survived, {1 - survived / len(known):.1%} killed")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _preload() -> None:
    """Import the other dependencies of the tests once for all children."""
    for name in ("hypothesis.stateful", "kubernetes.client", "cryptography.x509", "http.server", "email.parser"):
        with suppress(ImportError):
            importlib.import_module(name)


def main() -> None:
    """Measure the named modules, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.quality.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help="the modules; all by default")
    parser.add_argument("--out", type=Path, default=Path("build/mutants"), help="the folder of the records")
    parser.add_argument("--again", action="store_true", help="run earlier survivors once more")
    parser.add_argument("--laws", action="store_true", help=f"also run {' and '.join(LAWS)}")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # our plugin would load the module before it is changed
    _preload()
    for module in given.modules or MODULES:
        measure(module, given.out, again=given.again, laws=given.laws)


if __name__ == "__main__":
    main()
