"""`--what reliance` finds the one cue that a classifier reads; it resumes, and prints a table."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import spanets_cli
from spanets.analysis import band_pass
from spanets.analysis.plots import plot_reliance
from spanets.analysis.study import Options, analyze, reliance
from spanets.analysis.study.inputs import batches, class_labels
from spanets.backbones.published_classes import imagenet_classes
from spanets_runtime.errors import UserError

SIDE = 32
STATISTICS = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]


class Reader(nn.Module):
    """Answers by a score of the pixels, 1 if it is positive."""

    def __init__(self, score):
        super().__init__()
        self.score = score

    def forward(self, images):
        mean, std = STATISTICS
        score = self.score(images * std + mean)
        return torch.stack([-score, score], 1)


def mean_colour() -> nn.Module:
    """Is the image redder than blue?"""
    return Reader(lambda x: (x[:, 0] - x[:, 2]).mean((1, 2)))


def low_pass() -> nn.Module:
    """Is the left half brighter, below a fifth of Nyquist?"""
    return Reader(lambda x: (low := band_pass(x, 0, 0.2))[..., :16].sum((1, 2, 3)) - _right(low))


def _right(x):
    return x[..., 16:].sum((1, 2, 3))


def high_pass() -> nn.Module:
    """Do neighbours in a row differ more than neighbours in a column, from half of Nyquist up?"""

    def score(x):
        fine = band_pass(x, 0.5, 2.0)
        return fine.diff(dim=-1).square().sum((1, 2, 3)) - fine.diff(dim=-2).square().sum((1, 2, 3))

    return Reader(score)


def one_number() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Images with three independent properties: colour, bright half, direction of fine stripes."""
    folder = tmp_path_factory.mktemp("scenes")
    stripes = np.where(np.arange(SIDE) % 2, 0.1, -0.1)
    for number in range(16):
        red, left, vertical = (number >> bit & 1 for bit in range(3))
        image = np.full((SIDE, SIDE, 3), 0.5)
        image[..., 0 if red else 2] += 0.1
        image[:, : SIDE // 2] += 0.1 if left else -0.1
        image[:, SIDE // 2 :] -= 0.1 if left else -0.1
        image += stripes[None, :, None] if vertical else stripes[:, None, None]
        image += number / 2000  # no two files are equal
        Image.fromarray((image * 255).round().astype(np.uint8)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take a second each."""
    monkeypatch.setattr("spanets.analysis.study.draw", lambda *_: None)


def measure(name, images, out, **options):
    source = f"{__name__}:{name}"
    return analyze([source], images, out, ["reliance"], Options(**options), SIDE)[source][
        "reliance"
    ]


def test_mean_colour(undrawn, scenes, tmp_path):
    row = measure("mean_colour", scenes, tmp_path)
    assert row["reference"] == "own prediction"
    assert (row["images"], row["guess"], row["whole"]["accuracy"]) == (16, 0.5, 1)
    for name, found in row["suppressed"].items():
        # A grey image has no answer of its own: 0 > 0 is false, so half are called blue.
        assert found["accuracy"] == pytest.approx(0.5 if name == "colour: grey" else 1)
    low, high = row["suppressed"]["colour: grey"]["low"], row["suppressed"]["colour: grey"]["high"]
    assert 0.2 < low < 0.5 < high < 0.8
    conflict = row["conflict"]
    assert conflict["pairs"] == 8
    assert conflict["follows_low"]["share"] == [1] * len(conflict["cutoffs"])


def test_low_frequencies(undrawn, scenes, tmp_path):
    row = measure("low_pass", scenes, tmp_path)
    suppressed = row["suppressed"]
    assert suppressed["colour: grey"]["accuracy"] == 1
    assert suppressed["shape: 2x2 patches shuffled"]["accuracy"] < 1
    conflict = row["conflict"]
    for cutoff, low, high in zip(
        *(conflict["cutoffs"], conflict["follows_low"]["share"], conflict["follows_high"]["share"]),
        strict=True,
    ):
        if cutoff == 0 or cutoff >= 0.2:
            assert (low, high) == ((0, 1) if cutoff == 0 else (1, 0))


def test_high_frequencies(undrawn, scenes, tmp_path):
    row = measure("high_pass", scenes, tmp_path)
    suppressed = row["suppressed"]
    assert suppressed["colour: grey"]["accuracy"] == 1
    assert suppressed["shape: 2x2 patches shuffled"]["accuracy"] == 1
    conflict = row["conflict"]
    for cutoff, low, high in zip(
        *(conflict["cutoffs"], conflict["follows_low"]["share"], conflict["follows_high"]["share"]),
        strict=True,
    ):
        assert (low, high) == ((1, 0) if cutoff == 1 else (0, 1))


def test_numbers_follow_from_the_answers_by_image(undrawn, small_run, photos, tmp_path):
    """Anyone can count again; batches and interruptions change nothing."""
    source = str(small_run / "last.ckpt")
    whole = analyze([source], photos, tmp_path / "a", ["reliance"], Options(batch_size=16))
    row = whole[source]["reliance"]
    assert row["reference"] == "labels"
    assert row["guess"] == 0.5
    answers = row["answers"]
    assert len(answers["right"]["whole"]) == row["images"] == len(answers["classes"]) == 16
    assert row["whole"]["accuracy"] == answers["right"]["whole"].count("1") / 16
    for name, found in row["suppressed"].items():
        assert found["accuracy"] == answers["right"][name].count("1") / 16
        assert found["low"] <= found["accuracy"] <= found["high"]
    conflict = row["conflict"]
    shares = [conflict[kind]["share"] for kind in reliance.FOLLOWS]
    for letters, *share in zip(answers["follows"].values(), *shares, strict=True):
        assert share == [letters.count(letter) / len(letters) for letter in "lhn"]
        assert sum(share) == pytest.approx(1)
    others = analyze([source], photos, tmp_path / "b", ["reliance"], Options(batch_size=3))
    assert others[source]["reliance"] == row


@pytest.mark.parametrize("stops", [("batches", 2), ("mix_frequencies", 12)])
def test_an_interrupted_measurement_goes_on(undrawn, stops, scenes, tmp_path, monkeypatch):
    expected = measure("high_pass", scenes, tmp_path / "whole", batch_size=4)
    name, count = stops
    with monkeypatch.context() as patch:
        if name == "batches":

            def some(*arguments, **more):
                loaded = batches(*arguments, **more)
                yield from (next(loaded) for _ in range(count))
                raise KeyboardInterrupt

        else:
            calls, mix = [], reliance.mix_frequencies

            def some(*arguments):
                calls.append(arguments)
                if len(calls) > count:
                    raise KeyboardInterrupt
                return mix(*arguments)

        patch.setattr(reliance, name, some)
        with pytest.raises(KeyboardInterrupt):
            measure("high_pass", scenes, tmp_path / "parts", batch_size=4)
    (part,) = (tmp_path / "parts").glob("*.part.json")
    state = json.loads(part.read_text())["state"]
    if name == "batches":
        assert state["first"] == 8
    else:
        assert len(state["follows"]["0"]) == 4  # two pairs
    assert measure("high_pass", scenes, tmp_path / "parts", batch_size=4) == expected
    assert not part.exists()


def test_a_table(undrawn, scenes, tmp_path, capsys):
    words = ["analyze", f"{__name__}:high_pass", "--images", str(scenes), "--size", "32"]
    words += ["--what", "reliance", "--out", str(tmp_path)]
    assert spanets_cli.main(words) == 0
    said = capsys.readouterr().out
    assert "16 images, compared with own prediction; a guess is right in 0.50" in said
    assert "colour: grey                 1.00 [1.00, 1.00]  1.00 [1.00, 1.00]" in said
    assert "conflict of frequencies in 8 pairs, both ways" in said
    assert "0.5      0.00 [0.00, 0.00]  1.00 [1.00, 1.00]  0.00 [0.00, 0.00]" in said
    assert spanets_cli.main([*words, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out).values()
    assert row["reliance"]["conflict"]["pairs"] == 8


def test_images_of_one_class_have_no_conflict(undrawn, scenes, tmp_path, capsys):
    words = ["analyze", f"{__name__}:mean_colour", "--images", str(scenes), "--size", "32"]
    words += ["--what", "reliance", "--out", str(tmp_path), "--limit", "1"]
    assert spanets_cli.main(words) == 0
    assert "no conflict of frequencies: all images are of one class" in capsys.readouterr().out


def test_a_figure_of_models_with_and_without_a_conflict():
    right = {"whole": "1101", "shape": "1000", "colour: grey": "1111"}
    both = reliance.summarise(right) | {"conflict": reliance.summarise_conflict({"0.1": "lhnl"})}
    shape_alone = {"whole": "0000", "shape": "0000"}  # no relative accuracy
    one = reliance.summarise(shape_alone) | {"conflict": {}}
    left, right_half = plot_reliance({"both": both, "one": one}).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["shape", "colour: grey"]
    points = left.containers[0].lines[0]
    np.testing.assert_allclose(points.get_xdata(), [1 / 3, 4 / 3])
    assert not len(left.containers[1].lines[0].get_xdata())
    assert [line.get_ydata().tolist() for line in right_half.lines] == [[0.5], [0.25], [0.25]]


def test_what_is_no_classifier(scenes, tmp_path):
    with pytest.raises(UserError, match=r"its output is not \(B, classes\)"):
        measure("one_number", scenes, tmp_path)


def test_wordnet_ids_name_classes_of_imagenet(tmp_path):
    paths = [tmp_path / name / "1.png" for name in ("n01440764", "n02088364")]
    assert class_labels(tmp_path, paths, imagenet_classes()) == [0, 162]
    assert class_labels(tmp_path, paths, ["a", "b"]) is None
