"""`spanets push --space`: the files of a Hugging Face Space, and that it starts."""

import os
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from small_runs import call

import spanets_cli
from spanets.deploy.model_folder import SPACE_FILES
from spanets.explore import server
from spanets.explore.panels import command_of
from spanets.explore.workbench import Settings
from spanets.sources import open_source
from spanets_cli.commands.push import space_place

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(scope="module")
def space(small_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("space") / "space"
    words = ("push", str(small_run / "last.ckpt"), "--space", str(folder), "--licence", "mit")
    assert spanets_cli.main(words) == 0
    return folder


def test_files(space):
    assert {path.name for path in space.iterdir()} == {*SPACE_FILES}
    _, head, body = (space / "README.md").read_text("utf-8").split("---\n", 2)
    card = yaml.safe_load(head)
    assert card["sdk"] == "gradio"
    assert card["app_file"] == "app.py"
    assert card["license"] == "mit"
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    (wanted,) = [Requirement(one) for one in extras["explore"] if one.startswith("gradio")]
    assert wanted.specifier.contains(card["sdk_version"])
    assert "# space" in body
    assert "spanets[explore]==" in (space / "requirements.txt").read_text()
    assert open_source(space).info.classes == ["cat", "dog"]


def test_pushed_again_and_edited(space, small_run, capsys):
    words = ("push", small_run / "last.ckpt", "--space", space, "--licence", "mit")
    assert call(capsys, *words)[0] == 0
    text = (space / "app.py").read_text()
    (space / "app.py").write_text(f"{text}# mine\n")
    status, _, said = call(capsys, *words)
    assert (status, "app.py was not written by a push" in said) == (2, True)
    (space / "app.py").write_text(text)


def test_destinations(tmp_path, monkeypatch, capsys, small_run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert space_place("owner/name") == "hf-hub:owner/name"
    assert space_place("hf-hub:owner/name") == "hf-hub:owner/name"
    assert [space_place(word) for word in ("space", "a/b", "./x/y", "/x")] == [
        *("space", "a/b", "x/y", "/x")
    ]
    status, _, said = call(
        capsys, "push", small_run / "last.ckpt", "--space", "a/b", "--to", "published"
    )
    assert (status, "not allowed with" in said) == (2, True)


def test_the_command_of_its_page_opens_the_space(space, monkeypatch):
    """The model's name alone would open other weights."""
    served = []
    monkeypatch.setattr(server, "serve", lambda bench, *_, **__: served.append(bench))
    for place, word in ((None, space.name), ("owner/cells", "cells")):
        if place is not None:
            monkeypatch.setenv("SPACE_ID", place)
        server.serve_folder(space)
        command = command_of(served[-1], "look", [*served[-1].models], Settings(), "IMAGE")
        assert command.startswith(f"spanets explore {word} --panel look ")


@pytest.mark.slow  # starts a process that imports torch and gradio
def test_it_starts(space):
    pytest.importorskip("gradio")
    command = [sys.executable, str(space / "app.py")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=space.parent, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"gradio" in answer.read()
        process.terminate()
        assert process.wait(30) in (0, -15)
