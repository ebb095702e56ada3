"""Settings of the site; `make docs` builds it from docs/*.md and docstrings, without network."""

import os
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import spanets

project = "spanets"
author = "The spanets developers"
copyright = "The spanets developers, MIT licence"
version = release = spanets.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
extensions += ["sphinx.ext.viewcode", "myst_nb", "sphinx_copybutton"]
# Notebooks are read with their outputs: *.ipynb.
exclude_patterns = ["_build", "notebooks/[!i]*.md"]
suppress_warnings = ["config.cache"]

myst_heading_anchors = 4  # the anchors of GitHub: page.md#a-heading
nb_execution_mode = "off"  # `make notebooks` executes them and stores their outputs
nb_ipywidgets_js = {}  # scripts of another server
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # `ring=RING`, not 0.333...
autodoc_typehints = "signature"
autodoc_use_type_comments = False
autosummary_generate = False  # a page for each package, not for each function
napoleon_numpy_docstring = False
default_role = "py:obj"  # docstrings write `x` for code, as Markdown does; names become links
python_maximum_signature_line_length = 90

nitpicky = True
# Types of other packages appear in signatures. Their documentation is on other servers, and the
# site is built without network. Names of our own packages must resolve.
_OTHERS = (
    "torch|torchvision|timm|numpy|np|PIL|matplotlib|pathlib|os|types|collections|typing|argparse"
)
# The same without their package, as the source writes them for type checkers only.
_SHORT = "Tensor|nn.Module|Module|Figure|ModuleType|L.LightningModule"
_SHORT += "|Sequence|Mapping|Iterable|Iterator|Any"
# Type variables, a part of a type that Sphinx splits at a comma, and classes of our own that only
# authors of tasks meet. They are described in their source.
SOURCES = (Path(__file__).parents[1] / "src").rglob("*.py")
_DEFINED = (re.findall(r"^class (\w+)", path.read_text("utf-8"), re.M) for path in SOURCES)
_OWN = "|".join([r".*\.[RT]", r"dict\[str", "Columns", *sorted({n for ns in _DEFINED for n in ns})])
nitpick_ignore_regex = [
    ("py:.*", rf"({_OTHERS})(\..*)?"),
    ("py:.*", rf"(spanets.*\.)?({_SHORT}|{_OWN})"),
]

html_theme = "furo"
html_title = f"spanets {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
pygments_style, pygments_dark_style = "friendly", "github-dark"
copybutton_exclude = ".linenos, .gp, .go"
templates_path: list[str] = []


LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)([^)#\s]+)(#[^)]*)?\)")
FILE_NAME = re.compile(r"\[(?:\.\./)*[\w-]+\.md\]\(((?!http)[^)\s]+)\)")


def rewrite_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Names pages by their titles, and leads links to files outside docs/ to the repository.

    The repository's address is SPANETS_SOURCES, such as https://HOST/OWNER/NAME/blob/REVISION.
    Without it, a page of Markdown becomes plain text, and any other file a download.
    """
    address = os.environ.get("SPANETS_SOURCES", "").rstrip("/")

    def replace(link: re.Match[str]) -> str:
        text, up, path, anchor = link.groups()
        if up.count("../") <= docname.count("/"):  # in docs/
            return link[0]
        if address:
            return f"[{text}]({address}/{path}{anchor or ''})"
        return text if path.endswith(".md") else link[0]

    text = LINK.sub(replace, source[0])
    source[0] = FILE_NAME.sub(r"[](\1)", text)  # the title of the page, in place of its file name


def mark_literal_blocks(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Shows an indented block after a colon and an empty line as code, as Markdown does."""
    for i in range(len(lines) - 2):
        if lines[i].endswith(":") and not lines[i].endswith("::") and not lines[i + 1].strip():
            following = lines[i + 2]
            if len(following) - len(following.lstrip()) > len(lines[i]) - len(lines[i].lstrip()):
                lines[i] += ":"


def show_as_code(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.Element
) -> nodes.Element | None:
    """Leaves `x` in a docstring as code if it is no name of the reference."""
    return shown if node["reftype"] == "obj" else None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", rewrite_links)
    app.connect("missing-reference", show_as_code)
    app.connect("autodoc-process-docstring", mark_literal_blocks, priority=400)  # before napoleon
