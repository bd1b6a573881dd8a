"""How Sphinx builds the documentation: pages in Markdown, the reference from the docstrings."""

from __future__ import annotations

import builtins
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import _reference  # noqa: E402

project = "fleche"
author = "the fleche authors"
copyright = author
release = version_of("fleche")

extensions = [
    "myst_nb",  # Markdown, and notebooks, which it runs
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"fleche {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_search_scorer = str(HERE / "_search.js")  # guides before internals

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_merge_streams = True

default_role = "code"
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"show-inheritance": True}
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # an attribute that autodoc finds by itself is not described twice
autoclass_content = "both"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

_reference.write(HERE / "reference" / "api")


class Domain(PythonDomain):
    """Knows that `bytes` in an annotation is Python's, and where `fleche.File` is explained."""

    def find_obj(self, env: Any, modname: Any, classname: Any, name: str, *rest: Any) -> Any:
        if hasattr(builtins, name):
            return []
        name = _reference.explained_at(name)
        return super().find_obj(env, modname, classname, name, *rest)


def keep_first_line(_: Sphinx, what: str, *rest: Any) -> None:
    """Napoleon takes what stands before a colon in the first line of a property for its type."""
    lines = rest[-1]
    if what in ("property", "attribute", "data") and lines:
        lines[:0] = ["..", ""]  # an empty comment; empty lines alone would be skipped


def setup(app: Sphinx) -> None:
    app.add_domain(Domain, override=True)
    app.connect("autodoc-process-docstring", keep_first_line, priority=400)  # before napoleon
