"""The shipped packages: builds are reproducible and hold exactly the files that are needed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Final

import pytest

import kevents

pytestmark = pytest.mark.xdist_group("packages")  # they are built once per process
ROOT: Final = Path(__file__).parents[2]
EPOCH: Final = "1763769600"  # any moment; only its presence matters


def build(source: Path, target: Path) -> tuple[Path, Path]:
    """Build the wheel and the sdist of a folder with the installed tools. Returns the files."""
    kinds = ["--wheel", "--sdist"]
    command = [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(target), str(source)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel], [sdist] = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist of this checkout."""
    if not (ROOT / "kevents").is_dir():
        pytest.skip("these tests run against an installed wheel: there is nothing to build")
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def digest(path: Path) -> str:
    """The checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def metadata(wheel: Path) -> Message:
    """The metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_reproducible(built: tuple[Path, Path], tmp_path: Path) -> None:
    """A build from the sdist, in another folder and with other file times, is identical byte for byte."""
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [source] = tmp_path.iterdir()
    for path in source.rglob("*"):
        os.utime(path, (1, 1))
    again = build(source, tmp_path / "again")
    assert [digest(path) for path in again] == [digest(wheel), digest(sdist)]
    shutil.rmtree(tmp_path / "again")


def test_wheel(built: tuple[Path, Path]) -> None:
    """The wheel has every module, the py.typed marker and its metadata, and nothing else."""
    with zipfile.ZipFile(built[0]) as archive:
        names = set(archive.namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kevents").rglob("*.py")}
    notes = f"kevents-{kevents.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(notes)} == modules | {"kevents/py.typed"}
    assert {name.removeprefix(notes) for name in names if name.startswith(notes)} == {
        "entry_points.txt",
        "licenses/LICENSE",
        "METADATA",
        "RECORD",
        "WHEEL",
    }


def test_sdist(built: tuple[Path, Path]) -> None:
    """The sdist has the files to build, test and document the package, and no generated files."""
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "pyproject.toml",
        "docs/hatch_build.py",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "docs/conf.py",
        "examples/minimal.py",
    }
    assert (needed | {"kevents/py.typed", "tests/conftest.py"}) - names == set()
    assert [name for name in names if "__pycache__" in name or name.startswith((".ci", ".github", "dist/"))] == []


def test_metadata(built: tuple[Path, Path]) -> None:
    """The metadata lists the supported Pythons, the version of the module, and every extra."""
    told = metadata(built[0])
    assert told["Version"] == kevents.__version__
    assert told["Requires-Python"] == ">=3.10"
    assert "Typing :: Typed" in told.get_all("Classifier", [])
    plain = [line for line in told.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(re.split(r"[<>=!]", line)[0] for line in plain) == ["cachetools", "kubernetes", "tenacity"]
    assert {"aio", "all", "export", "kopf", "otlp", "prometheus"} <= set(told.get_all("Provides-Extra", []))


def test_description(built: tuple[Path, Path]) -> None:
    """The package page shows the README; each link is absolute, and those into the repository lead to files."""
    told = metadata(built[0])
    urls = dict(url.split(", ", 1) for url in told.get_all("Project-URL", []))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    description = told.get_payload(decode=True)
    assert isinstance(description, bytes)
    links = re.findall(r"\]\(([^)]+)\)", description.decode())
    assert told["Description-Content-Type"] == "text/markdown"
    assert len(links) == len(re.findall(r"\]\(([^)]+)\)", readme)) > 0
    assert [link for link in links if not link.startswith("https://")] == []
    inside = [re.split("/(?:raw|blob)/main/", link)[1] for link in links if link.startswith(f"{urls['Source']}/")]
    assert [path for path in inside if not (ROOT / path.partition("#")[0]).is_file()] == []
    assert {url for name, url in urls.items() if not url.startswith(urls["Source"])} == set()


def test_version_is_said_once() -> None:
    """The version is defined in one place, and the newest changelog entry is about it."""
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] in {"Unreleased", kevents.__version__}
    assert f'version = "{kevents.__version__}"' not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
