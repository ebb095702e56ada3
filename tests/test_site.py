"""The site: every public name is in its reference, notebooks are stored as executed, it builds."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted(p for p in (DOCS / "notebooks").glob("*.md") if p.stem != "index")
# Not for users: the registry puts the kernels in place, and the other is an old name.
NOT_PUBLIC = {"spanets.kernels", "spanets_runtime.onnx_masks"}


def public_modules() -> list[str]:
    """Modules that list their public names in `__all__`."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        assigned = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Assign)]
        if any(getattr(n.targets[0], "id", "") == "__all__" for n in assigned):
            parts = path.relative_to(ROOT / "src").with_suffix("").parts
            found.append(".".join(parts).removesuffix(".__init__"))
    return found


def test_public_names_are_in_the_reference():
    """`automodule` with `:members:` documents all of `__all__`, so each module needs one."""
    text = "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    documented = re.findall(r"automodule:: (\S+)\n   :members:\n(?!   :)", text)
    assert len(documented) == len(set(documented))
    assert set(public_modules()) - NOT_PUBLIC <= set(documented)


def test_pictures_are_small():
    for picture in (DOCS / "figures").glob("idea_*.png"):
        assert picture.stat().st_size < 150_000, picture.name


def cells(path: Path) -> list[str]:
    """The code cells of a notebook in MyST's format, without tags."""
    found = re.findall(r"```{code-cell}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.S)
    return [re.sub(r"\A(:.*\n)+\n?", "", cell).strip() for cell in found]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_as_executed(path):
    """If this fails: `make notebooks`."""
    stored = path.with_suffix(".ipynb").read_text(encoding="utf-8")
    code = [cell for cell in json.loads(stored)["cells"] if cell["cell_type"] == "code"]
    assert ["".join(cell["source"]) for cell in code] == cells(path)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert len(stored) < 300_000
    assert not re.search(r"/tmp/|/root/|/home/|site-packages", stored)  # of one machine


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_prose_of_notebooks_is_stored(path):
    """If this fails: `python docs/notebooks/execute.py --prose`."""
    jupytext = pytest.importorskip("jupytext")
    stored = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))
    prose = ["".join(cell["source"]) for cell in stored["cells"]]
    assert prose == [cell.source for cell in jupytext.read(path).cells]


def test_notebook_of_the_mixer_runs(capsys):
    exec("\n".join(cells(DOCS / "notebooks/own_network.md")), {})
    accuracy = re.findall(r"([\d.]+) of the pixels", capsys.readouterr().out)
    assert float(accuracy[1]) > float(accuracy[0])  # SPAM, and a 3×3 convolution


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_notebooks_run():
    pytest.importorskip("jupytext")
    pytest.importorskip("ipykernel")
    script = DOCS / "notebooks/execute.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_site_builds(tmp_path):
    """Without a warning: all names, links and pages resolve; nothing is loaded from elsewhere."""
    for module in ("sphinx", "furo", "myst_nb", "sphinx_copybutton"):
        pytest.importorskip(module)
    words = ["-W", "--keep-going", "-n", "-q", "-b", "html", DOCS, tmp_path / "html"]
    done = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = r'<(?:script|img|iframe)[^>]+src="https?:|<link[^>]+rel="stylesheet"[^>]+href="https?:'
    pages = {page: page.read_text(encoding="utf-8") for page in (tmp_path / "html").rglob("*.html")}
    assert len(pages) > 40
    assert not [page.name for page, text in pages.items() if re.search(loaded, text)]
    assert 'id="spanets.mixers.SPAM"' in pages[tmp_path / "html/reference/mixers.html"]
