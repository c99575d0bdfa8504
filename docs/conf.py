"""Sphinx builds these pages: ``make docs``."""

import os
import re
import sysconfig
from importlib import metadata
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import MathError, tex2mathml
from pydantic import BaseModel
from sphinx.util import logging

from pyg_lth import runtime

# As for the command line: before torch is imported.
runtime.tune()

# The tutorial runs the command line, which is installed beside this interpreter.
os.environ["PATH"] = os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))
# Its tables are as wide as a page, and its figures go to files.
os.environ |= {"COLUMNS": "84", "MPLBACKEND": "agg"}

project = "pyg-lth"
author = "the pyg-lth authors"
release = version = metadata.version("pyg-lth")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["tutorial", "_build"]
# Docstrings put code between single backquotes too.
default_role = "literal"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "model_config",
}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Prompts and output are left out of what the button copies.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": ["tutorial"],
    "gallery_dirs": ["generated"],
    "filename_pattern": r"\.py$",
    # What the page shows depends on the package, not on the script alone.
    "run_stale_examples": True,
    "reset_modules": (),
    "capture_repr": (),
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["output.css"]
html_title = f"pyg-lth {release}"
html_show_copyright = False
html_show_sourcelink = False


def mark_flags(text: str) -> str:
    """Mark flags as code, or their two hyphens would become a dash."""
    return re.sub(r"(?<![\w`-])--[a-z][a-z-]*", r"``\g<0>``", text)


def mark_flags_in_help(app: Any, context: Any, lines: list[str]) -> None:
    """Mark the flags in what a command or its options say of themselves."""
    lines[:] = [line if line.startswith("..") else mark_flags(line) for line in lines]


def described_fields(subject: Any) -> dict[str, Any]:
    """The fields of a pydantic model that say what they are."""
    if not (isinstance(subject, type) and issubclass(subject, BaseModel)):
        return {}
    return {name: field for name, field in subject.model_fields.items() if field.description}


def list_fields(
    app: Any, what: str, name: str, subject: Any, options: Any, lines: list[str]
) -> None:
    """Add to the docstring of settings what its fields say of themselves."""
    fields = described_fields(subject).items()
    if fields:
        lines.append("")
    for key, field in fields:
        description = mark_flags(field.description)
        lines.append(f":param {key}: {description} Default: ``{field.default!r}``.")


def leave_out_fields(
    app: Any, what: str, name: str, subject: Any, options: Any, signature: str, result: str
) -> tuple[str, None] | None:
    """Leave out of the signature what :func:`list_fields` lists."""
    return ("(**settings)", None) if described_fields(subject) else None


def write_formula(writer: Any, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as browsers read it, so that the pages need no script from elsewhere."""
    try:
        writer.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    except MathError as error:
        logging.getLogger(__name__).warning(error, location=node)
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Connect what Sphinx calls."""
    renderer = (write_formula, None)
    app.add_html_math_renderer("mathml", inline_renderers=renderer, block_renderers=renderer)
    # After napoleon, which has turned the docstring into reStructuredText by then.
    app.connect("autodoc-process-docstring", list_fields, priority=900)
    app.connect("autodoc-process-signature", leave_out_fields)
    for part in ("description", "options"):
        app.connect(f"sphinx-click-process-{part}", mark_flags_in_help)
