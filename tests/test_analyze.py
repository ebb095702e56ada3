"""`spanets analyze`: figures and numbers of several models, resumable, and what goes wrong."""

import json

import pytest
from PIL import Image
from torch import nn

import spanets_cli
from spanets import analyze as module
from spanets.analyze import analyze
from spanets_runtime.errors import UsageError, UserError

SMALL = {"size": 64, "batch_size": 4, "limit": 6}


def own_model() -> nn.Module:
    """A network that no library knows."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))


def own_number() -> int:
    return 3


def test_figures_and_numbers(small_run, photos, tmp_path):
    sources = ["spanet_nano", "spanetv2_nano_pure", "test_convnext"]
    results = analyze(sources, photos, tmp_path, ["amplitude", "receptive-field"], **SMALL)
    assert list(results) == sources
    for name in ("depth", "spectra", "spanet_nano_amplitude", "test_convnext_receptive_field"):
        assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width > 400
    record = json.loads((tmp_path / "spanet_nano.json").read_text())
    assert record["conventions"]["epsilon"] == 1e-6
    assert record["settings"]["count"] == 6
    rows = record["amplitude"]
    assert list(rows) == sorted(rows)
    for row in rows.values():
        assert row["images"] == 6
        assert row["mean"][0] == 0
        assert len(row["frequencies"]) == len(row["mean"])
        assert all(low <= high for low, high in zip(row["low"], row["high"], strict=True))


def test_what_is_done_is_not_done_again(photos, tmp_path, monkeypatch):
    analyze(["spanet_nano"], photos, tmp_path, **SMALL)
    first = (tmp_path / "spanet_nano.json").read_bytes()

    def fail(*_):
        raise AssertionError("ran again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_analyze_one", fail)
        analyze(["spanet_nano"], photos, tmp_path, **SMALL)
        assert (tmp_path / "spanet_nano.json").read_bytes() == first
        with pytest.raises(AssertionError, match="ran again"):
            analyze(["spanet_nano"], photos, tmp_path, profile="radial", **SMALL)


def test_a_users_own_network(photos, tmp_path):
    source = f"{__name__}:own_model"
    results = analyze([source], photos, tmp_path, ["amplitude", "response"], sites="*", **SMALL)
    assert set(results[source]["amplitude"]) == {"0", "1", "2"}
    assert results[source]["response"]["0"]["bands"]["low"] > 0


def test_a_checkpoint(small_run, photos, tmp_path):
    source = str(small_run / "last.ckpt")
    results = analyze([source], photos, tmp_path, sites="layer*", limit=3)
    assert results[source]["amplitude"]


@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        (["spanet_nan"], "unknown model 'spanet_nan'; did you mean 'spanet_nano'?", 2),
        (["test_resnet"], "ResNet has no preset for 'mixers'; give patterns", 2),
        (["spanet_nano", "--sites", "stage.0"], "no module matches 'stage.0'; did you mean", 2),
        (["spanet_nano", "--sites", "head.fc"], "spanet_nano: head.fc: no map", 1),
        (["spanet_nano", "--what", "magic"], "--what is 'magic', allowed: amplitude, respo", 2),
        (["spanet_nano", "--profile", "oval"], "profile is 'oval', allowed: diagonal, radial", 1),
        (["spanet_nano", "--images", "nowhere"], "nowhere: no such folder", 1),
        (["nowhere:f"], "nowhere:f: No module named 'nowhere'; give module:function", 2),
    ],
)
def test_mistakes(words, said, status, photos, tmp_path, capsys):
    given = [] if "--images" in words else ["--images", str(photos)]
    out = ["--out", str(tmp_path / "out"), "--size", "64", "--limit", "2"]
    assert spanets_cli.main(["analyze", *words, *given, *out]) == status
    assert said in capsys.readouterr().err


def test_folders_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="a folder without images"):
        analyze(["spanet_nano"], tmp_path / "empty", tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="a folder without readable images"):
        analyze(["spanet_nano"], tmp_path / "broken", tmp_path)


def test_a_function_that_returns_no_network(photos, tmp_path):
    with pytest.raises(UsageError, match=r"returns a int, must be a torch\.nn\.Module"):
        analyze([f"{__name__}:own_number"], photos, tmp_path)
