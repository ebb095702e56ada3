"""Executes the notebooks and stores each with its outputs beside it, such as finetune.ipynb.

    python docs/notebooks/execute.py [NAME...] [--check | --prose]

They run in an empty temporary folder, without network. With --check nothing is stored. With --prose
nothing is executed: changed text is stored with the earlier outputs.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
LARGEST = 300_000  # bytes of a stored notebook
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def execute(path: Path) -> Any:
    """Executes a notebook; returns it with its outputs."""
    notebook = jupytext.read(path)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=1200, resources=resources, record_timing=False).execute()
    return notebook


def take_outputs(path: Path) -> Any:
    """Returns a notebook with the outputs of its stored form.

    Raises:
        ValueError: the code has changed since then.
    """
    notebook, stored = jupytext.read(path), nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    code = [[cell for cell in n.cells if cell.cell_type == "code"] for n in (notebook, stored)]
    if [cell.source for cell in code[0]] != [cell.source for cell in code[1]]:
        raise ValueError(f"the code of {path.name} has changed: run without --prose")
    for cell, earlier in zip(*code, strict=True):
        cell.outputs, cell.execution_count = earlier.outputs, earlier.execution_count
    return notebook


def merge_streams(outputs: list[Any]) -> list[Any]:
    """Joins printed text that arrived in parts."""
    merged: list[Any] = []
    for output in outputs:
        if merged and "text" in output and merged[-1].get("name") == output.get("name"):
            merged[-1]["text"] += output["text"]
        else:
            merged.append(output)
    return merged


def clean(notebook: Any) -> Any:
    """Removes what differs in every run: identifiers, the machine's Python, escapes for colours."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel})
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
        for output in cell.get("outputs", ()):
            output["metadata"] = nbformat.from_dict({})
            if "text" in output:
                output["text"] = ESCAPES.sub("", output["text"])
    return notebook


def main() -> int:
    """Executes the named notebooks, or all; returns the exit status."""
    parser = argparse.ArgumentParser(description="Executes the notebooks of the documentation.")
    parser.add_argument("names", nargs="*", help="such as finetune (default: all)")
    parser.add_argument("--check", action="store_true", help="execute only; store nothing")
    parser.add_argument("--prose", action="store_true", help="store changed text; execute nothing")
    arguments = parser.parse_args()
    # Cells call the `spanets` command of this environment, and no cell may fetch anything.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    os.environ["PYTHONWARNINGS"] = "ignore"  # a bar of Jupyter is not installed
    names = arguments.names or sorted(p.stem for p in HERE.glob("*.md") if p.stem != "index")
    for name in names:
        begin = time.perf_counter()
        make = take_outputs if arguments.prose else execute
        text = nbformat.writes(clean(make(HERE / f"{name}.md"))) + "\n"
        print(f"{name}: {time.perf_counter() - begin:.0f} s, {len(text) // 1000} kB", flush=True)
        if len(text) > LARGEST:
            print(f"{name}: more than {LARGEST // 1000} kB; show less", file=sys.stderr)
            return 1
        if not arguments.check:
            (HERE / f"{name}.ipynb").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
