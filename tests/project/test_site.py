"""The documentation site: it builds without warnings and documents every public name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
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
pytestmark = pytest.mark.xdist_group("site")  # built once per process
DOORS: Final = ["kevents"] + [
    module.name for module in pkgutil.walk_packages(kevents.__path__, "kevents.") if "._" not in module.name
]
PUBLIC: Final = [door for door in DOORS if not door.startswith("kevents.testing.")]
"""Without the modules of `kevents.testing`, whose names are public in the package."""


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


@pytest.fixture(scope="module")
def reference(site: Path) -> dict[str, set[str]]:
    """The documented names of the inventory by kind (`class`, `method` ...), without aliases in private modules."""
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    kinds = {kind.removeprefix("py:"): names for kind, names in inventory.items() if kind.startswith("py:")}
    return {kind: {name for name in names if "._" not in name} for kind, names in kinds.items()}


def public_members(cls: type) -> set[str]:
    """The public methods and properties of a class, those that it inherits from kevents included."""
    found = set()
    for name in dir(cls):
        owner = next((base for base in cls.__mro__ if name in vars(base)), object)
        if not name.startswith("_") and owner.__module__.startswith("kevents"):
            member = inspect.getattr_static(cls, name)
            if callable(member) or isinstance(member, property | classmethod | staticmethod):
                found.add(name)
    return found


@pytest.mark.timeout(400)
@pytest.mark.parametrize("door", DOORS)
def test_every_public_name_is_documented(site: Path, reference: dict[str, set[str]], door: str) -> None:
    """The reference has each exported name, each public method, inherited ones too, and a page with the source."""
    module = importlib.import_module(door)
    exported = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    classes = {name: value for name, value in exported.items() if inspect.isclass(value)}
    members = {f"{name}.{member}" for name, cls in classes.items() for member in public_members(cls)}
    documented = {name for names in reference.values() for name in names}
    expected = {f"{door}.{name}" for name in ({*exported, *members} if door in PUBLIC else exported)}
    assert expected - documented == set()
    homes = {getattr(value, "__module__", "") for value in exported.values()}
    sources = {home: site / "_modules" / f"{home.replace('.', '/')}.html" for home in homes if "kevents" in home}
    assert [home for home, source in sources.items() if not source.is_file()] == []


@pytest.mark.timeout(400)
def test_nothing_private_is_documented(reference: dict[str, set[str]]) -> None:
    """Each documented function, class, method and property is public, and of kevents."""
    expected = set()
    for door in PUBLIC:
        module = importlib.import_module(door)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            expected |= {f"{door}.{name}"}
            expected |= {f"{door}.{name}.{m}" for m in (public_members(value) if inspect.isclass(value) else ())}
    documented = set().union(*(reference.get(kind, set()) for kind in ("function", "class", "method", "property")))
    aliases = tuple(f"{door}." for door in ({*DOORS} - {*PUBLIC}) | {"kevents.exceptions"})  # where a class is defined
    assert {name for name in documented if not name.startswith(aliases)} - expected == set()


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
