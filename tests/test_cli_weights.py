"""`spanets weights`, and the commands that take a model's name."""

import json
import re
import shutil

import golden
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo

import spanets
from spanets.analysis.study import Options, analyze
from spanets.backbones.published_classes import imagenet_classes, published_classes
from spanets.data.sources.imagenet import name_classes, wordnet_ids
from spanets.weights import PUBLISHED, read_checkpoint
from spanets.weights.published import release_of
from spanets_cli import main
from spanets_runtime.errors import UsageError, UserError

NAME = "spanet_small"
FILE = "spanet-small.pth"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A mirror with one released file, and a cache, which the tests of this file share."""
    root = tmp_path_factory.mktemp("weights")
    path = root / "mirror" / release_of(NAME).path
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": golden.released_state(NAME)}, path)
    return root


@pytest.fixture(autouse=True)
def setting(places, monkeypatch):
    monkeypatch.setenv("SPANETS_RELEASES", str(places / "mirror"))
    monkeypatch.setenv("TORCH_HOME", str(places / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def spoken(capsys):
    """Runs a command and returns its status and what it printed."""

    def run(*words) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    for name in ("n01440764", "goldfish"):
        (root / name).mkdir()
        pixels = noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name / "0.png")
    return root


def test_list_fetch_verify(spoken, places):
    path = places / "home/hub/checkpoints" / FILE
    path.unlink(missing_ok=True)
    status, out, _ = spoken("weights", "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert status == 0
    assert list(rows) == [release.name for release in PUBLISHED]
    assert {row["state"] for row in rows.values()} == {"not cached"}
    assert rows["spanetv2_s18_pure.kist_in1k"]["licence"] is None
    status, out, _ = spoken("weights", "fetch", "spanet_s*", f"{NAME}.kist_in1k")
    assert (status, out.count("\n")) == (0, 1)
    status, out, _ = spoken("weights", "list")
    assert status == 0
    assert re.search(rf"{NAME}.kist_in1k +114.8 MB +mit +cached +{path}", out)
    assert "not stated" in out
    assert spoken("weights", "verify")[0] == 0
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    status, out, err = spoken("weights", "verify", NAME)
    assert (status, out) == (1, "")
    assert f"{path}: changed since" in err
    assert err.count("\n") == 1
    path.write_bytes(content)


def test_unknown_and_missing_weights(spoken):
    for words, status, reason in (
        (("fetch", "spanet_nano"), 2, "the nearest model that has some is spanet_small"),
        (("fetch", "spanet_smal"), 2, "did you mean 'spanet_small'?"),
        (("fetch", "spanet_base"), 1, "spanet-base.pth: no such file, nor "),
        (("verify", "spanet_base"), 1, "spanet-base.pth: not fetched yet"),
        ((), 2, "ACTION"),
        (("lst",), 2, "invalid choice: 'lst'"),
    ):
        found, out, err = spoken("weights", *words)
        assert (found, out, err.count("\n")) == (status, "", 1)
        assert reason in err


def test_convert(spoken, places, tmp_path):
    file = places / "mirror" / release_of(NAME).path
    out = tmp_path / "new.safetensors"
    status, said, err = spoken("weights", "convert", file, "--out", out, "--model", NAME)
    assert (status, said) == (0, f"{out}: 476 tensors of spanet_small\n")
    assert "72 masks are constants: compared, then dropped" in err
    model = timm.create_model(NAME, device="meta")
    assert read_checkpoint(out).keys() == model.state_dict().keys()
    status, said, _ = spoken("weights", "convert", file, "--out", out, "--model", NAME)
    assert (status, "was there already" in said) == (0, True)
    out.write_bytes(b"another file")
    for words, code, reason in (
        (("--out", out, "--model", NAME), 1, "exists with other content"),
        (("--out", tmp_path / "x.pth"), 2, "must end in .safetensors"),
        (("--out", tmp_path / "y.safetensors", "--model", "spanet_nano"), 1, "not the weights of"),
        (("--out", tmp_path / "y.safetensors", "--model", "resnet18"), 2, "must be one of this"),
    ):
        status, said, err = spoken("weights", "convert", file, *words)
        assert (status, said, err.count("\n")) == (code, "", 1)
        assert reason in err
    assert out.read_bytes() == b"another file"


@pytest.mark.slow
def test_convert_finds_the_model(spoken, build, tmp_path):
    """From a checkpoint with a wrapper and a prefix, for other classes."""
    model = build("spanet_tiny", num_classes=3)
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    out = tmp_path / "b.safetensors"
    status, said, _ = spoken("weights", "convert", tmp_path / "a.pth", "--out", out, "--json")
    assert (status, json.loads(said)["model"]) == (0, "spanet_tiny")
    torch.save({"x": torch.zeros(3)}, tmp_path / "c.pth")
    status, _, err = spoken("weights", "convert", tmp_path / "c.pth", "--out", out)
    assert status == 1
    assert "fits no model of this package" in err


@pytest.mark.slow
def test_predict_and_eval_by_name(spoken, pictures, places):
    status, out, _ = spoken("predict", NAME, pictures, "--json", "--top", 1)
    predicted = json.loads(out)
    assert (status, len(predicted)) == (0, 2)
    assert predicted[0]["predictions"][0]["label"] in imagenet_classes()
    file = places / "mirror" / release_of(NAME).path
    status, same, err = spoken("predict", NAME, pictures, "--json", "--top", 1, "--weights", file)
    assert (status, json.loads(same)) == (0, predicted)
    assert "tensors loaded (the released names)" in err
    status, out, err = spoken("eval", NAME, "--data", pictures, "--workers", 0, "--json")
    assert status == 0
    assert "2 class folders matched to ImageNet's names" in err
    assert json.loads(out)["images"] == 2
    assert "confusion" not in json.loads(out)


def test_eval_of_imagenets_layout(spoken, pictures, tmp_path):
    (tmp_path / "val").mkdir()
    shutil.copytree(pictures / "n01440764", tmp_path / "val/n01440764")
    status, out, _ = spoken("eval", NAME, "--data", tmp_path, "--workers", 0, "--json")
    assert status == 0
    assert json.loads(out)["layout"] == "imagenet"
    assert json.loads(out)["classes"] == 1000


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("predict", "FILE", "IMAGES"), "or the model's name with --weights"),
        (("predict", "spanet_nano", "IMAGES"), "the nearest model that has some is spanet_small"),
        (("predict", "spanet_smal", "IMAGES"), "did you mean 'spanet_small'?"),
        (("predict", f"{NAME}.x", "IMAGES"), "unknown tag 'x' of model spanet_small"),
        (("explain", "spanet_nano", "IMAGES", "--out", "OUT"), "no weights of spanet_nano"),
        (("eval", NAME), "name a folder with --data"),
        (("eval", "spanet_tiny", "--data", "IMAGES"), "no weights of spanet_tiny"),
        (("analyze", "spanet_base", "--images", "IMAGES", "--out", "OUT"), "or --no-pretrained"),
        (("export", "spanet_base", "--out", "OUT/x.onnx"), "--weights FILE or --no-pretrained"),
        (
            ("analyze", NAME, "a", "--weights", "FILE", "--images", "IMAGES", "--out", "OUT"),
            "--weights goes with one model, not with 2",
        ),
        (
            ("analyze", "spanet_nano", "--pretrained", "--images", "IMAGES", "--out", "OUT"),
            "no weights of spanet_nano",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(words, reason, spoken, pictures, places, tmp_path):
    file = places / "mirror" / release_of(NAME).path
    names = {"FILE": str(file), "IMAGES": str(pictures), "OUT": str(tmp_path)}
    given = [names.get(word, word.replace("OUT/", f"{tmp_path}/")) for word in words]
    status, out, err = spoken(*given)
    assert (status in (1, 2), out, err.count("\n")) == (True, "", 1)
    assert reason in err


@pytest.mark.slow
def test_analysis_of_random_and_of_published_weights_differ(pictures, tmp_path, capsys):
    settings = {"size": 32, "limit": 1, "options": Options("stages.0.blocks.0")}
    found = [
        analyze([NAME], pictures, tmp_path, pretrained=pretrained, **settings)[NAME]["amplitude"]
        for pretrained in (None, False)
    ]
    assert found[0] != found[1]
    capsys.readouterr()
    analyze(["spanet_nano"], pictures, tmp_path, pretrained=None, **settings)
    assert "spanet_nano: its weights are random: give --weights FILE" in capsys.readouterr().err


@pytest.mark.slow
def test_source_by_name():
    source = spanets.open_source(f"{NAME}.kist_in1k", pretrained=True)
    assert (source.has_weights, source.info.model, len(source.info.classes)) == (True, NAME, 1000)
    assert source.preprocess.crop_pct == 0.9
    random = spanets.open_source(NAME)
    assert (random.has_weights, random.info.classes) == (False, [])
    with pytest.raises(UsageError):
        spanets.open_source("spanet_nano", pretrained=True)
    assert not spanets.open_source("spanet_nano", pretrained=None).has_weights


def test_class_names():
    names, described = imagenet_classes(), ImageNetInfo().label_descriptions()
    assert len(set(names)) == 1000
    differing = [(a, b) for a, b in zip(names, described, strict=True) if a != b]
    assert [a for a, _ in differing] == ["crane (n02012849)", "crane (n03126707)"]
    model = timm.create_model("test_resnet", num_classes=1000)
    assert published_classes(model) == list(names)
    assert published_classes(timm.create_model("test_resnet", num_classes=3)) == []


def test_class_folders():
    goldfish = "goldfish, Carassius auratus"
    folders = ["n01443537", "Goldfish", "carassius_auratus", goldfish, "my class"]
    names, notes = name_classes(folders)
    assert names == [goldfish] * 4 + ["my class"]
    assert notes[0].startswith("3 class folders matched to ImageNet's names, such as 'n01443537'")
    assert name_classes(["my class"]) == (["my class"], ())
    assert name_classes(wordnet_ids())[0] == list(imagenet_classes())
    with pytest.raises(UserError, match="may mean 2 of ImageNet's classes"):
        name_classes(["crane"])


@pytest.mark.slow
def test_explained_class_by_a_word(spoken, pictures, tmp_path):
    words = ("explain", NAME, pictures / "goldfish", "--what", "context", "--out", tmp_path)
    assert spoken(*words, "--target", "goldfish")[0] == 0
    status, _, err = spoken(*words, "--target", "crane")
    assert status == 1
    assert "may mean 2 of ImageNet's classes" in err
