"""What the tabs of the page show, without a server."""

from types import SimpleNamespace

import pytest
from PIL import Image

from spanets.explore.results import Shown

pytest.importorskip("gradio")

import gradio

from spanets.explore.app import Visit
from spanets.explore.page import Page
from spanets.explore.tabs import _look_cells


def test_a_long_part_never_stands_beside_another_image():
    visit, old, new = Visit("look"), ["a.png", "m", "none"], ["b.png", "m", "none"]

    def cams():
        yield "half of a"
        assert [*visit.fill("look", False, new, lambda: ["answers of b"], "same")] == [
            "answers of b"
        ]
        yield "a"

    assert [*visit.fill("look", False, old, lambda: ["answers of a"], "same")] == ["answers of a"]
    assert [*visit.fill("look", True, old, cams, "same")] == ["half of a", "same"]
    assert [*visit.fill("look", True, new, lambda: ["b"], "same")] == ["b"]


def test_samples_of_a_large_folder(monkeypatch, tmp_path):
    """The files are sorted, so the first ones are of one class."""
    monkeypatch.setattr("spanets.explore.page.MOST_SAMPLES", 4)
    images = [tmp_path / name / f"{i}.png" for name in ("cat", "dog") for i in range(4)]
    bench = SimpleNamespace(
        folder=tmp_path, models={}, listing=SimpleNamespace(folder=tmp_path, images=images)
    )
    page = Page(bench, [], tmp_path)
    assert [*page.samples] == ["cat/0.png", "cat/2.png", "dog/0.png", "dog/2.png"]
    assert page.describe_samples() == "4 of the folder's 8 images, evenly spread"


def test_clearing_an_upload_returns_to_the_sample_that_is_shown(tmp_path):
    samples = [tmp_path / "a.png", tmp_path / "b.png"]
    page = Page(SimpleNamespace(folder=None, models={}), samples, tmp_path)
    with gradio.Blocks() as blocks:
        page.choose()
    (clear,) = [fn for fn in blocks.fns.values() if fn.targets[0][1] == "clear"]
    assert [one.label for one in clear.inputs] == ["sample"]
    assert clear.fn("b.png") == (str(samples[1]), "")


def test_a_column_shows_its_own_model():
    """A model's name may be the beginning of another's."""
    words, picture = ["resnet18d", "resnet18"], Image.new("RGB", (1, 1))
    page = SimpleNamespace(
        bench=SimpleNamespace(models=dict.fromkeys(words)), bars_of=lambda shown: ""
    )
    answers = {word: {"cat": 1.0} for word in words}
    shown = Shown({"contexts of resnet18d": picture}, answers)
    _, _, first, _, _, second = _look_cells(page, words, shown)
    assert first is picture
    assert second is None
