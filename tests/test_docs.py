"""The guides: their commands parse, their files exist, and what they say was run here runs."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import spanets_cli

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page):
    lines = "\n".join(blocks(page, "sh")).splitlines()
    ours = [line.split(" #")[0] for line in lines if line.startswith("spanets ")]
    assert ours
    for line in ours:
        words = shlex.split(line)[1:]
        if words[0] == "train":
            words, _ = spanets_cli.split_overrides(words)
        spanets_cli.make_parser().parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_exist(page):
    text = page.read_text(encoding="utf-8")
    links = [
        link.split("#")[0]
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
        if not link.startswith(("http", "#"))
    ]
    named = re.findall(r"`((?:benchmarks|src|docs|examples)/[\w/.-]+)`", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_deploying_with_onnxruntime(small_run, photos, tmp_path, monkeypatch, capsys):
    """The two snippets of docs/deploy.md for ONNX Runtime."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    words = ["export", str(small_run / "last.ckpt"), "--static", "--out", "cells.onnx"]
    assert spanets_cli.main(words) == 0
    Image.new("RGB", (50, 40)).save("photo.png")
    capsys.readouterr()
    first, second, *_ = blocks(ROOT / "docs/deploy.md", "python")
    exec(first, {})
    assert capsys.readouterr().out.startswith("photo.png [(")
    scope = {"images": np.zeros((1, 3, 32, 32), np.float32)}
    exec(second, scope)
    assert scope["logits"].shape == (1, 2)


SNIPPETS = [
    snippet
    for name in ("analysis", "detection", "robustness")
    for snippet in blocks(ROOT / f"docs/{name}.md", "python")
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_print(snippet, capsys):
    exec(snippet, {})
    assert capsys.readouterr().out
