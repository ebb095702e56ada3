"""The guides: their commands parse, their files exist, and what they say was run here runs."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import spanets_cli
from spanets.recipe import list_recipes, load_recipe
from spanets.training.devices import per_device_batch
from spanets_cli.parser import split_overrides

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
OTHERS += sorted((ROOT / "docs").glob("*/*.md"))  # the reference, the notebooks
# Written by scripts, without commands.
WITHOUT_COMMANDS = ("recipe-keys.md", "works-with.md")


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page):
    lines = "\n".join(blocks(page, "sh")).splitlines()
    ours = [line.split(" #")[0] for line in lines if line.startswith("spanets ")]
    assert ours or page.name in WITHOUT_COMMANDS
    for line in ours:
        words = shlex.split(line)[1:]
        if words[0] == "train":
            words, _ = spanets_cli.split_overrides(words)
        spanets_cli.make_parser().parse_args(words)


def test_commands_of_the_table_of_formats():
    """Commands parse, recipes exist and have these keys."""
    text = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    found = re.findall(r"^\|.*?`(spanets [^`]+)`", text, flags=re.MULTILINE)
    assert len(found) > 20
    for line in set(found):
        words = shlex.split(line)[1:]
        if len(words) == 1:  # the name of a command
            continue
        if words[0] == "train":
            words, overrides = split_overrides(words)
            load_recipe(words[1], overrides)
        spanets_cli.make_parser().parse_args(words)


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
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
    for name in (
        *("analysis", "detection", "extend", "idea", "labels", "models", "robustness"),
        "segmentation",
    )
    for snippet in blocks(ROOT / f"docs/{name}.md", "python")
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_print(snippet, capsys):
    exec(snippet, {})
    assert capsys.readouterr().out


def test_checkpoints_in_python(small_run, tmp_path, monkeypatch, capsys):
    """The snippets of docs/python.md."""
    monkeypatch.chdir(tmp_path)
    for folder in ("runs", "photos/cat"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "runs/cells").symlink_to(small_run)
    Image.new("RGB", (50, 40)).save("photos/cat/1.png")
    first, second, _ = blocks(ROOT / "docs/python.md", "python")
    for snippet in (first, second):
        exec(snippet, {})
        assert capsys.readouterr().out


def test_embeddings_in_python(small_run, photos, tmp_path, monkeypatch, capsys):
    """The snippet of docs/embed.md."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/photos").symlink_to(small_run)
    (tmp_path / "photos").symlink_to(photos)
    (snippet,) = blocks(ROOT / "docs/embed.md", "python")
    exec(snippet, {})
    assert capsys.readouterr().out


def training_commands() -> list[str]:
    """The words after "train" of each command about runs, however it is started."""
    pages = (ROOT / "docs/train.md", ROOT / "docs/cluster.md")
    text = "\n".join("\n".join(blocks(page, "sh")) for page in pages).replace("\\\n", " ")
    return re.findall(r"(?:^| )spanets(?:_cli)? train (.*)", text, flags=re.MULTILINE)


@pytest.mark.parametrize("command", training_commands())
def test_training_commands_make_runs(command):
    """Recipes and keys exist, and batches divide."""
    (recipe, *own), overrides = split_overrides(shlex.split(command, comments=True))
    if not recipe.endswith(".yaml"):
        assert per_device_batch(load_recipe(recipe, overrides)) > 1
    assert set(own) <= {"--out", "--resume", "runs/small", "runs/photos", "$OUT", "$RESUME"}


@pytest.mark.slow  # counts the operations of every model
def test_hours_on_paper(capsys):
    """The table of docs/cluster.md is what its snippet prints."""
    page = ROOT / "docs/cluster.md"
    (snippet,) = blocks(page, "python")
    exec(snippet, {})
    printed = capsys.readouterr().out.splitlines()
    table = re.findall(r"^\| imagenet/.*", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    recipes = [name for name in list_recipes() if name.startswith("imagenet/")]
    assert {row.split()[1] for row in table} == set(recipes)
    assert set(table) <= set(printed)
