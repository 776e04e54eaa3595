"""The documentation site: it builds without warnings and documents every public name."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import kevents

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
NEEDED: Final = ("sphinx", "myst_parser", "furo", "sphinx_copybutton")
MISSING: Final = [name for name in NEEDED if importlib.util.find_spec(name) is None]
DOORS: Final = ["kevents"] + [
    module.name for module in pkgutil.walk_packages(kevents.__path__, "kevents.") if "._" not in module.name
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site with warnings as errors. Returns its folder."""
    if MISSING:
        pytest.skip(f"the extra docs is not installed: {', '.join(MISSING)}")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.timeout(400)
def test_every_page_is_built(site: Path) -> None:
    """Each page is built, and linked from the landing page."""
    landing = (site / "index.html").read_text(encoding="utf-8")
    for page in [*DOCS.glob("*.md"), *DOCS.glob("api/*.md")]:
        address = page.relative_to(DOCS).with_suffix(".html").as_posix()
        assert (site / address).is_file()
        assert address == "index.html" or f'href="{address}"' in landing, address


@pytest.mark.timeout(400)
@pytest.mark.parametrize("door", DOORS)
def test_every_public_name_is_documented(site: Path, door: str) -> None:
    """The reference has an entry and the source of each name that a public module exports."""
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    documented = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    module = importlib.import_module(door)
    exported = {f"{door}.{name}" for name in getattr(module, "__all__", ())}
    assert exported - documented == set()
    homes = {getattr(getattr(module, name.rpartition(".")[2]), "__module__", "") for name in exported}
    sources = {home: site / "_modules" / f"{home.replace('.', '/')}.html" for home in homes if "kevents" in home}
    assert [home for home, source in sources.items() if not source.is_file()] == []


def test_diagrams() -> None:
    """The diagrams in the repository are those that `python docs/pictures.py` draws."""
    specification = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    assert specification is not None
    assert specification.loader is not None
    pictures = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(pictures)
    drawn = {
        f"{name}-{theme}.svg": pictures.draw(name, theme) for name in pictures.PICTURES for theme in pictures.COLOURS
    }
    held = {path.name: path.read_text(encoding="utf-8") for path in pictures.FOLDER.glob("*.svg")}
    assert {name: text for name, text in held.items() if name != "demo.svg"} == drawn
