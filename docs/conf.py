"""Configuration of the site: ``python -m sphinx -W -b html docs build/docs``."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers import TextLexer
from sphinx import addnodes

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

import kevents  # noqa: E402 - the one of this checkout

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

URLS = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]

PUBLIC = [
    "kevents",
    "kevents.aio",
    "kevents.events",
    "kevents.export",
    "kevents.export.prometheus",
    "kevents.kopf",
    "kevents.log_handler",
    "kevents.prometheus",
    "kevents.pytest_plugin",
    "kevents.testing",
]

project = "kevents"
author = "The kevents authors"
copyright = "The kevents authors"  # noqa: A001 - Sphinx's own name for it
release = version = kevents.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # Names of other packages, and private names in signatures.
    ("py:.*", r"(?!kevents\.).*"),
    ("py:.*", r"kevents\.(\w+\.)*_\w+(\..*)?"),
    ("py:class", r"kevents\.kopf\.Info"),
    ("py:class", r"kevents\.(export\.)?prometheus\.Has\w+"),
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
myst_url_schemes = {"https": None, "repository": URLS["Source"]}

FOREIGN = "object, BaseException, Exception, str, tuple, dict, Enum, Protocol, Generic, Handler, Filterer, Collector"
autodoc_default_options = {
    "members": True,
    "inherited-members": FOREIGN,
    "member-order": "bysource",
}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

copybutton_exclude = ".linenos, .gp, .go"
html_theme = "furo"
html_title = f"kevents {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": True,
    "source_repository": URLS["Source"],
    "source_branch": "main",
    "source_directory": "docs/",
}


LINKS = {  # files beside the documentation, and their pages on the site
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "../examples/kopf/README.md": "examples.md#kopf_operatorpy",
    "../examples/export/README.md": "examples.md#an-export-in-a-cluster",
}


@cache
def public_names() -> dict[str, str]:
    """Map the private name of each public object to its public name."""
    found = {}
    for module_name in PUBLIC:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found.setdefault(f"{value.__module__}.{value.__qualname__}", f"{module_name}.{name}")
    return found


def resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element
) -> nodes.Node | None:
    """Resolve a private name, as signatures have it, to the public one."""
    target = public_names().get(node.get("reftarget", ""))
    if target is None or node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)


def qualify(_app: Sphinx, doctree: nodes.document) -> None:
    """Complete a bare name of ``kevents`` in the signatures of another public module."""
    for node in doctree.findall(addnodes.pending_xref):
        target, module = node.get("reftarget", ""), node.get("py:module")
        if module in PUBLIC and target in kevents.__all__ and target not in importlib.import_module(module).__all__:
            node["reftarget"] = f"kevents.{target}"


def lead_inside(_app: Sphinx, _docname: str, source: list[str]) -> None:
    """Insert included files, and turn links to files beside the pages into links to pages.

    A glob pattern that matches no page is removed.
    """
    text = re.sub(
        r"^:::\{include\} \.\./(\w+\.md)\n:::$",
        lambda line: (DOCS.parent / line[1]).read_text(encoding="utf-8").replace("](docs/", "]("),
        source[0],
        flags=re.MULTILINE,
    )
    text = re.sub(r"^([\w-]+\*)\n", lambda line: line[0] if list(DOCS.glob(line[1])) else "", text, flags=re.MULTILINE)
    for outside, inside in LINKS.items():
        text = re.sub(rf"\]\({re.escape(outside)}(#[\w-]+)?\)", lambda link, to=inside: f"]({to}{link[1] or ''})", text)
    source[0] = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples.md#\1py)", text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the functions of this file."""
    app.add_lexer("sql", TextLexer)  # that of Pygments does not know DuckDB's SQL
    app.connect("source-read", lead_inside)
    app.connect("doctree-read", qualify)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
