"""`spanets analyze`: figures and numbers of several models, resumable, and what goes wrong."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import spanets_cli
from spanets.analysis.study import WHAT, Options, analyze, inputs, measure
from spanets.analysis.study.figures import make_titles
from spanets.analysis.study.inputs import batches
from spanets.analysis.study.record import identity
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.listing import spread_evenly

SMALL = {"size": 32, "limit": 6}
FEW = Options(sites="*", frequencies=3, batch_size=4)


def own_model() -> nn.Module:
    """A network that no library knows."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))


def own_classifier() -> nn.Module:
    """Two classes, by a convolution and a mean."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Named(nn.Module):
    """Gives no tensor, and takes one size."""

    def forward(self, images):
        assert images.shape[-1] == 32, "images must be of 32x32"
        return {"images": images}


def own_number() -> int:
    return 3


def broken_model() -> nn.Module:
    """Outputs that are not finite."""
    model = own_model()
    nn.init.constant_(model[0].weight, float("nan"))
    return model


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take a second each."""
    monkeypatch.setattr("spanets.analysis.study.draw", lambda *_: None)


def test_figures_and_numbers(photos, tmp_path):
    sources = ["spanet_nano", "spanetv2_nano_pure", "test_convnext"]
    what = ["amplitude", "receptive-field"]
    results = analyze(sources, photos, tmp_path, what, size=64, limit=6)
    assert list(results) == sources
    for name in ("depth", "spectra", "spanet_nano_amplitude", "receptive_field"):
        assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 400
    record = json.loads((tmp_path / "spanet_nano.json").read_text())
    assert record["conventions"]["epsilon"] == 1e-6
    assert record["settings"]["count"] == 6
    assert record["measured"]["amplitude"] == {"sites": "mixers", "profile": "diagonal"}
    rows = record["amplitude"]
    assert list(rows) == sorted(rows)
    for row in rows.values():
        assert row["images"] == 6
        assert row["mean"][0] == 0
        assert len(row["frequencies"]) == len(row["mean"])
        assert all(low <= high for low, high in zip(row["low"], row["high"], strict=True))


@pytest.mark.slow
def test_everything_at_once_of_a_users_own_network(photos, tmp_path):
    source = f"{__name__}:own_classifier"
    what = [name for name in WHAT if name != "receptive-field"]
    options = Options(sites=["0"], frequencies=3)
    row = analyze([source], photos, tmp_path, what, options, size=32, limit=4)[source]
    assert set(row["amplitude"]) == set(row["response"]) == set(row["impulse"]) == {"0"}
    assert row["response"]["0"]["bands"]["low"] > 0
    impulse = np.array(row["impulse"]["0"])
    assert impulse.shape == (32, 32)
    assert (impulse[15:18, 15:18] > 0).all()
    assert np.count_nonzero(impulse) == 9  # of a 3×3 kernel
    for name in ("bands", "sensitivity_error", "sensitivity_change", "depth"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """The names of the measurements that are made."""
    names = []

    def spy(name, measurement):
        def run(subject):
            names.append(name)
            return measurement.run(subject)

        return measure.Measurement(run, measurement.options)

    spies = {name: spy(name, m) for name, m in measure.MEASUREMENTS.items()}
    monkeypatch.setattr(measure, "MEASUREMENTS", spies)
    monkeypatch.setattr("spanets.analysis.study.MEASUREMENTS", spies)
    return names


def test_what_is_done_is_not_done_again(undrawn, ran, small_run, photos, tmp_path):
    source = str(small_run / "last.ckpt")

    def ran_by(*what, options=FEW, images=photos, **more):
        ran.clear()
        analyze([source], images, tmp_path, what, options, **{**SMALL, **more})
        return list(ran)

    assert ran_by("bands") == ["bands"]
    assert ran_by("bands") == []
    assert ran_by("bands", "sensitivity") == ["sensitivity"]  # what was there stays
    assert ran_by("bands", "sensitivity", options=Options("*", frequencies=3, batch_size=3)) == []
    assert ran_by("sensitivity", options=Options("*", frequencies=5)) == ["sensitivity"]
    assert ran_by("bands") == []
    assert ran_by("bands", limit=5) == ["bands"]  # other images: nothing counts any more
    assert ran_by("sensitivity", limit=5) == ["sensitivity"]


def test_what_may_have_changed_is_measured_anew(undrawn, ran, photos, tmp_path):
    for _ in range(2):
        analyze([f"{__name__}:own_classifier"], photos, tmp_path, ["bands"], FEW, **SMALL)
    assert ran == ["bands", "bands"]


def test_identities_change_with_the_files(tmp_path):
    """A folder's are those of its files, as another push replaces them."""
    folder, file = tmp_path / "pushed", tmp_path / "last.ckpt"
    folder.mkdir()
    paths = [file, folder / "config.json", folder / "model.safetensors"]
    for path in paths:
        path.write_text("1")
    for source, path in zip((file, folder, folder), paths, strict=True):
        before = identity(str(source))
        assert identity(str(source)) == before
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        later = identity(str(source))
        path.write_text("22")
        os.utime(path, ns=(0, later[-1]))
        assert before != later != identity(str(source))
    assert identity("resnet18") == ["resnet18"]
    for source in ("module:function", "hf-hub:owner/name"):
        assert identity(source) != identity(source)


NO_ACCURACY = ("bands", "corruptions", "reliance")


def one_number() -> nn.Module:
    """One output, whose largest is always the first."""
    return nn.Sequential(nn.Conv2d(3, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_what_is_no_classifier_has_no_accuracy(undrawn, task, photos, tmp_path, monkeypatch):
    real, source = inputs.open_network, f"{__name__}:own_classifier"

    def of_the_task(*arguments):
        opened, preprocess = real(*arguments)
        return replace(opened, info=replace(opened.info, task=task)), preprocess

    monkeypatch.setattr("spanets.analysis.study.open_network", of_the_task)
    for what in NO_ACCURACY:
        with pytest.raises(UserError, match=f"is for {task}, so it has no accuracy"):
            analyze([source], photos, tmp_path, [what], FEW, **SMALL)
    row = analyze([source], photos, tmp_path, ["sensitivity"], FEW, **SMALL)[source]
    assert "change" in row["sensitivity"]
    assert "error" not in row["sensitivity"]


def test_one_number_is_no_class(undrawn, photos, tmp_path):
    source = f"{__name__}:one_number"
    for what in NO_ACCURACY:
        with pytest.raises(UserError, match=r"not \(B, classes\), so it has no accuracy"):
            analyze([source], photos, tmp_path, [what], FEW, **SMALL)
    row = analyze([source], photos, tmp_path, ["sensitivity"], FEW, **SMALL)[source]
    assert "error" not in row["sensitivity"]


def test_titles_differ_where_sources_do():
    cells = [f"study/cells/net={net}/seed-{seed}/last.ckpt" for net in "ab" for seed in (0, 1)]
    assert list(make_titles(cells).values()) == [
        *("net=a/seed-0/last", "net=a/seed-1/last", "net=b/seed-0/last", "net=b/seed-1/last")
    ]
    assert make_titles([cells[0], "resnet18"]) == {cells[0]: "seed-0/last", "resnet18": "resnet18"}
    many = [*cells, "/a/x/last.ckpt", "x/last.ckpt", "./x/last.ckpt", "last.ckpt", "x/best.ckpt"]
    assert len(set(make_titles(many).values())) == len(many)


@pytest.mark.parametrize("what", ["sensitivity", "bands"])
def test_an_interrupted_measurement_goes_on(
    undrawn, what, small_run, photos, tmp_path, monkeypatch
):
    """The numbers are those of a run in one go, to the bit, and no image is answered for twice."""
    source = str(small_run / "last.ckpt")
    options = Options(frequencies=3, batch_size=4)
    whole = analyze([source], photos, tmp_path / "whole", [what], options)[source]
    with monkeypatch.context() as patch:

        def two_batches(*arguments, **more):
            loaded = batches(*arguments, **more)
            yield next(loaded)
            yield next(loaded)
            raise KeyboardInterrupt

        patch.setattr(measure, "batches", two_batches)
        with pytest.raises(KeyboardInterrupt):
            analyze([source], photos, tmp_path / "parts", [what], options)
    (part,) = (tmp_path / "parts").glob("*.part.json")
    assert json.loads(part.read_text())["state"]["first"] == 8
    seen = []

    def spy(paths, preprocess, size, first, **more):
        seen.append(first)
        return batches(paths, preprocess, size, first, **more)

    monkeypatch.setattr(measure, "batches", spy)
    resumed = analyze([source], photos, tmp_path / "parts", [what], options)[source]
    assert seen == [8]
    assert resumed[what] == whole[what]
    assert not part.exists()


def test_labels_are_class_folders_and_else_the_models_own_answers(
    undrawn, small_run, photos, tmp_path
):
    source = str(small_run / "last.ckpt")
    options = Options(frequencies=3)
    what = ["sensitivity", "bands"]
    row = analyze([source], photos, tmp_path / "a", what, options)[source]
    assert row["bands"]["reference"] == row["sensitivity"]["reference"] == "labels"
    assert row["bands"]["images"] == 16
    assert row["bands"]["clean"] == pytest.approx(1 - row["sensitivity"]["clean_error"])
    # All frequencies are the image itself.
    assert row["bands"]["low_pass"]["accuracy"][-1] == row["bands"]["clean"]
    assert row["bands"]["high_pass"]["accuracy"][0] == row["bands"]["clean"]
    assert row["sensitivity"]["epsilon"] == pytest.approx(15.7 * row["sensitivity"]["side"] / 224)
    row = analyze([source], photos / "cat", tmp_path / "b", what, options)[source]
    assert row["bands"]["reference"] == row["sensitivity"]["reference"] == "own prediction"
    assert row["bands"]["clean"] == 1


def test_images_of_mixed_sizes_and_unreadable_ones(undrawn, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for side in (40, 64, 90):
        Image.new("RGB", (side, 2 * side), (side, 0, 0)).save(folder / f"{side}.png")
    (folder / "50.png").write_bytes(b"no image")
    source = f"{__name__}:own_classifier"
    row = analyze([source], folder, tmp_path, ["amplitude", "bands"], Options("0"), size=32)[source]
    assert row["amplitude"]["0"]["images"] == row["bands"]["images"] == 3


def test_tokens_have_responses_too(undrawn, photos, tmp_path):
    options = Options(sites="blocks.0.attn")
    row = analyze(["test_vit"], photos, tmp_path, ["response"], options, limit=1)["test_vit"]
    (numbers,) = row["response"].values()
    assert np.array(numbers["gain"]).shape == (10, 10)


def test_limits_are_spread_over_the_classes(photos):
    files = sorted(photos.rglob("*.png"))
    assert [path.parent.name for path in spread_evenly(files, 4)] == ["cat", "cat", "dog", "dog"]
    assert spread_evenly(files, 99) == spread_evenly(files, None) == files


def test_a_checkpoint(undrawn, small_run, photos, tmp_path):
    source = str(small_run / "last.ckpt")
    results = analyze([source], photos, tmp_path, options=Options("layer*"), limit=3)
    assert results[source]["amplitude"]


OWN = f"{__name__}:own_model"


@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        (["spanet_nan"], "unknown model 'spanet_nan'; did you mean 'spanet_nano'?", 2),
        (["test_resnet", "--no-pretrained"], "ResNet has no preset for 'mixers'; give patterns", 2),
        (
            ["spanet_nano", "--sites", "stage.0"],
            "no module matches 'stage.0'; the nearest are stages.0, ",
            2,
        ),
        (["spanet_nano", "--sites", "head.fc"], "spanet_nano: head.fc: no map", 1),
        (["spanet_nano", "--what", "bandz"], "--what is 'bandz', allowed: amplitude, respo", 2),
        (["spanet_nano", "--what", "bandz"], "did you mean 'bands'?", 2),
        (["spanet_nano", "--profile", "oval"], "--profile is 'oval', allowed: diagonal, radial", 2),
        (["spanet_nano", "--images", "nowhere"], "nowhere: no such folder", 1),
        (["nowhere:f"], "nowhere:f: No module named 'nowhere'; give module:function", 2),
        ([f"{__name__}:broken_model", "--sites", "0"], "gives numbers that are not finite", 1),
        ([OWN, "--what", "bands"], "its output is not (B, classes)", 1),
        ([f"{__name__}:Named", "--what", "bands"], "Named: images must be of 32x32", 1),
        ([OWN, "--what", "receptive-field"], "has no forward_features", 1),
        (
            [OWN, "--what", "sensitivity", "--epsilon", "-1"],
            "--epsilon: -1 is no number above 0",
            2,
        ),
        (
            [OWN, "--what", "sensitivity", "--epsilon", "nan"],
            "--epsilon: nan is no number above",
            2,
        ),
        (
            [OWN, "--what", "sensitivity", "--frequencies", "4"],
            "--frequencies is 4, must be odd",
            2,
        ),
        ([OWN, "--frequencies", "1"], "--frequencies: 1 is no whole number from 3 to 255", 2),
    ],
)
def test_mistakes(words, said, status, photos, tmp_path, capsys):
    given = [] if "--images" in words else ["--images", str(photos)]
    out = ["--out", str(tmp_path / "out"), "--size", "64", "--limit", "2"]
    assert spanets_cli.main(["analyze", *words, *given, *out]) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("what", ["response", "impulse"])
def test_modules_that_do_nothing_have_no_response(what, photos, tmp_path):
    with pytest.raises(UserError, match=r"drop_path1: returns its input unchanged"):
        options = Options("layers.0.blocks.0.drop_path1")
        name = "swin_tiny_patch4_window7_224"
        analyze([name], photos, tmp_path, [what], options, limit=1)


def test_folders_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="a folder without images"):
        analyze(["spanet_nano"], tmp_path / "empty", tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.png").write_bytes(b"no image")
    for what in ("amplitude", "bands", "response"):
        with pytest.raises(UserError, match="a folder without readable images"):
            analyze(["spanet_nano"], tmp_path / "broken", tmp_path, [what])


def test_outputs_that_are_no_tensor(photos, tmp_path):
    with pytest.raises(UserError, match="Named: its output is a dict, must be a tensor"):
        analyze([f"{__name__}:Named"], photos, tmp_path, ["sensitivity"], **SMALL)


def test_a_function_that_returns_no_network(photos, tmp_path):
    with pytest.raises(UsageError, match=r"returns a int, must be a torch\.nn\.Module"):
        analyze([f"{__name__}:own_number"], photos, tmp_path)


def test_a_damaged_record_is_measured_anew(undrawn, small_run, photos, tmp_path):
    source = str(small_run / "last.ckpt")
    first = analyze([source], photos, tmp_path, ["bands"], **SMALL)
    (record,) = Path(tmp_path).glob("*.json")
    for text in ("", "[]", '{"settings": 3}', record.read_text()[:200]):
        record.write_text(text)
        assert analyze([source], photos, tmp_path, ["bands"], **SMALL) == first
