"""Every command and snippet of the README runs, on data small enough for a test."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import spanets
import spanets_cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODELS = (ROOT / "docs/models.md").read_text(encoding="utf-8")

# What makes a command of the README small: these words are added to it.
SMALL = ["--model.args", "{depths: [1, 1, 1, 1]}", "--trainer.epochs", "1"]
SMALL += ["--data.image_size", "64", "--data.workers", "0"]
STATIC = ["--static", "--size", "64"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = "\n".join(blocks("sh")).splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with what the README's examples take for granted."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            pixels = noise.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    weights = timm.create_model("spanet_small").state_dict()
    torch.save({"state_dict": weights}, "spanet_small.pth.tar")
    release = tmp_path / "mirror/SPANet-official/releases/download/ImageNet-pretrained"
    release.mkdir(parents=True)
    torch.save(weights, release / "spanet-small.pth")
    monkeypatch.setenv("SPANETS_RELEASES", str(tmp_path / "mirror"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    small = timm.create_model("spanetv2_nano_pure")  # in place of the model that it is named for
    torch.save(small.state_dict(), "spanetv2_s18_pure.pth")
    return tmp_path


@pytest.mark.timeout(1200)  # a dozen commands, each on what those before it left
@pytest.mark.parametrize("as_written", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_commands_run(workplace, as_written, capsys):
    """By default without what takes longest; other tests export to int8, with free sizes, maps."""
    ours = [line for line in commands() if line.startswith("spanets ")]
    assert len(ours) >= 7
    for line in ours:
        words = shlex.split(line)[1:]
        if words[:2] == ["train", "elpv"]:
            words.append("--print-recipe")  # the whole data set: `make quickstart` trains on it
        elif words[:2] == ["train", "finetune"]:  # from weights of the whole model
            if not as_written:
                continue
            words += SMALL[2:]
        elif words[0] == "train":
            words += SMALL
        elif words[0] == "explore":  # files in place of a page, which would wait for its users
            words += ["--panel", "frequencies", "--image", "photos/cat/1.png", "--out", "explored"]
        elif words[:2] == ["export", "spanetv2_s18_pure"]:
            words = ["export", "spanetv2_nano_pure", *words[2:]]
        if not as_written and {"int8", "--features-only"} & set(words):
            continue
        if not as_written and words[0] == "export" and "--static" not in words:
            words += STATIC
        assert spanets_cli.main(words) == 0, (line, capsys.readouterr().err)


@pytest.mark.parametrize("snippet", blocks("python"), ids=lambda text: text.splitlines()[-1][:30])
def test_snippets_run(workplace, snippet):
    scope: dict[str, object] = {}
    exec(compile(snippet, "README.md", "exec"), scope)
    if "maps" in scope:
        shapes = [tuple(m.shape) for m in scope["maps"]]
        assert shapes == [(1, 64, 50, 83), (1, 128, 25, 42), (1, 320, 13, 21), (1, 512, 7, 11)]


def test_make_targets_exist():
    targets = [line.split()[1] for line in commands() if line.startswith("make ")]
    assert "quickstart" in targets
    assert "test" in targets
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_links_lead_somewhere():
    for link in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_model_table_is_that_of_the_command(capsys):
    assert spanets_cli.main(["models", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    row = r"^\| (spanet\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]*) ?\|"
    rows = re.findall(row, MODELS, flags=re.M)
    assert [row[0] for row in rows] == spanets.list_models()
    assert set(re.findall(row, README, flags=re.M)) < set(rows)
    for (name, parameters, macs, top1), counted in zip(rows, table, strict=True):
        assert name == counted["model"]
        assert parameters == f"{counted['parameters'] / 1e6:.1f}"
        assert macs == f"{counted['macs'] / 1e9:.1f}"
        assert top1 == (f"{counted['top1_paper']}" if counted["top1_paper"] else "")
