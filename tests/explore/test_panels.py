"""The panels' pictures and numbers, without gradio."""

import csv
import io
import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import call, make_photos

from spanets.analysis import capture
from spanets.checkpoint import ModelInfo
from spanets.explore import pictures, workbench
from spanets.explore.frequencies import gains_of, masks_of
from spanets.explore.look import contexts_by_head
from spanets.explore.panels import PANELS, PARTS, command_of
from spanets.explore.pictures import curves
from spanets.explore.results import Series, Shown, save, to_csv, to_json
from spanets.explore.twins import Twins, balanced, balanced_stages, share_tensors
from spanets.explore.workbench import Settings, Workbench
from spanets.mixers import SpectralFilter
from spanets.sources import Source
from spanets.tasks import load_task
from spanets_cli import make_parser
from spanets_cli.commands import explore
from spanets_runtime.errors import UserError

pytest.importorskip("matplotlib")

SHALLOW = {"depths": [1, 1, 1, 1]}


def opened(name: str, classes: list[str], **arguments) -> Source:
    torch.manual_seed(0)
    values = {"input_size": [3, 64, 64], "crop_pct": 1.0, "interpolation": "bilinear"}
    values |= {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    info = ModelInfo(name, {**SHALLOW, **arguments}, classes, values, {}, "0.1")
    return Source(name, load_task("classification").build_model(info).eval(), info)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Workbench:
    folder = make_photos(tmp_path_factory.mktemp("explore") / "photos", cat=3, dog=3)
    learnt = opened("spanet_nano", ["cat", "dog"], learn_balance="gate")
    v2 = opened("spanetv2_nano_pure", ["cat", "dog"])
    plain = opened("spanet_nano", ["cat", "dog"])
    return Workbench({"a": plain, "b": v2, "c": learnt}, folder)


@pytest.fixture
def image(bench) -> str:
    return str(bench.listing.images[0])


def values(shown: Shown, plot: str) -> dict[str, np.ndarray]:
    return {one.name: one.values for one in shown.series if one.plot.startswith(plot)}


def test_contexts_of_heads_add_up(bench):
    """SPAM's context is the sum over its heads; with one head it is that head's."""
    network = opened("spanet_nano", ["cat", "dog"], balances=[0.8]).network
    batch, name = torch.randn(1, 3, 64, 64), "stages.1.blocks.0.token_mixer.context"
    with torch.no_grad():
        maps, outputs = contexts_by_head(network, batch)
        whole = capture(network, batch, name, layout="nchw")[name].abs().mean(1)
        torch.testing.assert_close(maps["stages.1"], whole)
        torch.testing.assert_close(network(batch), outputs)
        of_three, _ = contexts_by_head(bench.models["a"].source.network, batch)
    assert [*of_three] == [f"stages.{i}" for i in range(4)]
    assert of_three["stages.1"].shape == (3, 8, 8)


def test_twins_share_tensors_but_no_hooks(bench):
    network = bench.models["a"].source.network
    twin = share_tensors(network)
    for own, other in zip(network.parameters(), twin.parameters(), strict=True):
        assert own is other
    twin.stages.register_forward_hook(lambda *_: None)
    assert not network.stages._forward_hooks


@pytest.mark.parametrize("word", ["a", "c"])
def test_balance_changes_the_borrowed_network_alone(bench, word):
    twins, batch = Twins(bench.models[word].source.network), torch.randn(1, 3, 64, 64)
    with twins.borrow() as network:
        own, before = balanced_stages(network), network(batch)
        assert own["stages.1"] == [0.7, 0.8, 0.9]
        with balanced(network, "stages.1", [0.0, 0.5, 1.0]):
            assert balanced_stages(network)["stages.1"] == [0.0, 0.5, 1.0]
            changed = network(batch)
            assert balanced_stages(twins.network) == own
            assert torch.equal(twins.network(batch), before)
        with balanced(network, "stages.1", own["stages.1"]):
            torch.testing.assert_close(network(batch), before)
        assert torch.equal(network(batch), before)
        assert (changed - before).abs().max() > 1e-6
    keys = [*twins.network.state_dict()]
    assert keys == [*network.state_dict()]


@pytest.mark.parametrize(
    ("stage", "given", "said"),
    [
        ("stages.9", [0.5] * 3, "stage is 'stages.9', allowed: stages.0, "),
        ("stages.1", [0.5] * 2, "balance is '0.5 0.5', must be 3 numbers from 0 to 1"),
        ("all", [0.5, 0.5, 2.0], "must be 3 numbers from 0 to 1"),
    ],
)
def test_wrong_balances(bench, stage, given, said):
    network = share_tensors(bench.models["a"].source.network)
    with pytest.raises(UserError) as caught, balanced(network, stage, given):
        pass
    assert said in str(caught.value)


def test_two_users_at_once(bench, image):
    """One changes λ while the other looks: each gets what it gets alone."""
    changed = Settings(image, stage="stages.0", balance=(0.0, 0.0, 0.0))

    def look():
        return values(PANELS["look"].show(bench, ["a"], Settings(image)), "context")

    def balance():
        return values(PANELS["balance"].show(bench, ["a"], changed), "logits")["this λ"]

    alone, moved = look(), balance()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(job) for job in (look, balance) * 2]
        for job in jobs[::2]:
            for name, value in job.result().items():
                np.testing.assert_allclose(value, alone[name], rtol=1e-4, atol=1e-5)
        for job in jobs[1::2]:
            np.testing.assert_allclose(job.result(), moved, rtol=1e-4, atol=1e-5)


def test_the_whole_band_is_the_image(bench, image):
    shown = PANELS["frequencies"].show(bench, ["a"], Settings(image))
    assert shown.answers["whole image"] == pytest.approx(shown.answers["this band"], abs=1e-5)
    none = PANELS["frequencies"].show(bench, ["a"], Settings(image, low=0.0, high=0.0))
    spectrum = values(none, "log amplitude of the image")["this band"]
    assert np.unravel_index(spectrum.argmax(), spectrum.shape) == (32, 32)


def test_curves_drawn_before_leave_no_trace():
    """Figures are kept and drawn again: the picture depends on its own curves alone."""
    x = np.linspace(0, 1, 9)
    given = [{"own λ": (x, -x * k), "this λ": (x[:k], 9.0 * k + x[:k])} for k in (2, 5, 8)]

    def draw(lines):
        return np.asarray(curves(lines, "x", "y"))

    alone = []
    for lines in given:
        pictures._empty_plot.cache_clear()
        alone.append(draw(lines))
    assert not np.array_equal(alone[0], alone[1])
    with ThreadPoolExecutor(4) as pool:
        for drawn, expected in zip(pool.map(draw, given * 2), alone * 2, strict=True):
            np.testing.assert_array_equal(drawn, expected)


def test_masks_and_gains_at_any_size(bench):
    for side in (7, 14):
        masks = masks_of(bench.models["a"].source.network, side)
        assert len(masks) == 12
        for title, mask in masks.items():
            balance = float(title.split("λ ")[1].split(",")[0])
            assert mask[side // 2, side // 2] == pytest.approx(balance)
            assert mask[0, 0] == pytest.approx(1 - balance)
        with torch.no_grad():
            gains = gains_of(bench.models["b"].source.network, side)
        assert gains
        for gain in gains.values():
            assert gain.shape == (side, side)
            assert 0 <= gain.min() <= gain.max() <= 1
            if side % 2:  # a real filter's gain is even
                np.testing.assert_allclose(gain, gain[::-1, ::-1], atol=1e-6)


def test_a_gain_that_was_set_is_shown(bench):
    network = share_tensors(bench.models["b"].source.network)
    for module in network.modules():
        if isinstance(module, SpectralFilter):
            module.logits = torch.nn.Parameter(torch.full_like(module.logits, -3.0))
            module.logits.data[:, 0, 0] = 3.0
            module.alpha = None
    height, _ = next(m for m in network.modules() if isinstance(m, SpectralFilter)).map_size
    with torch.no_grad():
        gain = next(iter(gains_of(network, height).values()))
    assert gain[height // 2, height // 2] == pytest.approx(1 / (1 + np.exp(-3)), abs=1e-5)
    assert np.delete(gain.ravel(), gain.argmax()).max() == pytest.approx(0.0474, abs=1e-3)


@pytest.mark.parametrize("panel", ["look", "frequencies", "balance", "tradeoff", "compare"])
def test_panels(bench, image, panel, tmp_path, capsys):
    words = {"look": ["a", "b"], "compare": ["a", "b", "c"]}.get(panel, ["a"])
    settings = Settings(image, limit=4)
    shown = PANELS[panel].show(bench, words, settings)
    assert shown.pictures or panel == "compare"
    command = command_of(bench, panel, words, settings, image)
    assert make_parser().parse_args(shlex.split(command)[1:]).panel == panel
    numbers = json.loads(to_json(shown, command))
    assert numbers["command"] == command
    rows = list(csv.DictReader(io.StringIO(to_csv(shown))))
    assert {row["plot"] for row in rows} == {*numbers["plots"]}
    assert len(rows) == sum(one.values.size for one in shown.series)


@pytest.mark.parametrize(("task", "classes"), [("regression", 2), ("classification", 1)])
def test_a_trade_off_of_what_is_no_classifier(bench, task, classes):
    source = opened("spanet_nano", ["cat", "dog"][:classes])
    source = replace(source, info=replace(source.info, task=task))
    shown = PANELS["tradeoff"].show(Workbench({"n": source}, bench.folder), ["n"], Settings())
    assert list(shown.pictures) == ["high frequencies"]
    assert [one.name for one in shown.series] == ["stages.0"]
    assert "n: is no classifier, so it has no right answers" in shown.notes


def test_comparing(bench):
    shown = PANELS["compare"].show(bench, ["a", "b"], Settings(limit=6))
    table = {one.plot: dict(zip(one.x, one.values, strict=True)) for one in shown.series[:4]}
    assert 0 <= table["accuracy"]["a"] <= 1
    count = sum(p.numel() for p in bench.models["a"].source.network.parameters())
    assert table["parameters (million)"]["a"] == pytest.approx(count / 1e6)
    for words in (["a"], ["a", "a"]):
        with pytest.raises(UserError, match="must be 2 or 3 different ones"):
            PANELS["compare"].show(bench, words, Settings())


@pytest.mark.parametrize(
    ("panel", "words", "settings", "said"),
    [
        ("look", ["x"], Settings(), "model is 'x', allowed: a, b, c"),
        ("look", ["a"], Settings(""), "no image; upload one, or choose a sample"),
        ("look", ["a"], Settings("nowhere.png"), "nowhere.png: No such file"),
        ("frequencies", ["a"], Settings(low=0.5, high=0.1), "band is 0.5 to 0.1, must be two"),
        ("balance", ["b"], Settings(), "has no SPAM, so it has no λ to set"),
        ("detect", ["a"], Settings(), "takes checkpoints of detectors and segmenters"),
        ("detect", ["a"], Settings(min_score=2), "score is 2, must be from 0 to 1"),
    ],
)
def test_errors_in_words(bench, image, panel, words, settings, said):
    if panel in ("balance", "detect") and not settings.image:
        settings = Settings(image, min_score=settings.min_score)
    with pytest.raises(UserError) as caught:
        PANELS[panel].show(bench, words, settings)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_image_or_too_large(bench, tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"text\.png"):
        PANELS["look"].show(bench, ["a"], Settings(str(tmp_path / "text.png")))
    monkeypatch.setattr(workbench, "MOST_PIXELS", 99)
    Image.new("RGB", (10, 10)).save(tmp_path / "large.png")
    with pytest.raises(UserError, match="10x10"):
        PANELS["look"].show(bench, ["a"], Settings(str(tmp_path / "large.png")))


def test_csv_holds_no_formulas():
    shown = Shown(series=(Series("answer", "=1+1", ["@x", "\x1b"], np.array([1.0, np.nan])),))
    assert to_csv(shown).splitlines()[1:] == ["answer,'=1+1,'@x,,1.0", "answer,'=1+1,\\x1b,,"]
    assert json.loads(to_json(shown, ""))["plots"]["answer"]["=1+1"]["values"] == [1.0, None]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("a b --panel balance --image i", "--panel balance takes one model, not 2"),
        ("a --panel compare --images i", "--panel compare takes 2 to 3 models, not 1"),
        ("a --panel look", "--panel look needs --image FILE"),
        ("a --panel tradeoff --limit 4", "--panel tradeoff needs --images DIR"),
        (
            "a --panel balance --image i --band 0 0.2 --score 0.9",
            "--panel balance does not use --band; leave it out (it uses --image, --stage, "
            "--balance)",
        ),
        ("a --panel look --image i --port 80", "does not use --port; leave it out (it uses --im"),
        ("a --image i", "--image is for files; add --panel NAME --out DIR, or leave it out"),
    ],
)
def test_options_that_a_panel_cannot_use(refused, tmp_path, words, said):
    """No model is opened: "a" is none."""
    out = ["--out", tmp_path] * ("--panel" in words)
    assert said in refused(2, "explore", *words.split(), *out)


@pytest.mark.parametrize("name", ["numbers.csv", "numbers.json"])
def test_numbers_of_the_user_stay(refused, tmp_path, name):
    (tmp_path / name).write_text("mine")
    words = ["explore", "a", "--panel", "look", "--image", "i", "--out", tmp_path]
    assert refused(1, *words).endswith("move it, or name another folder with --out")
    with pytest.raises(UserError, match="did not write it"):
        save(Shown(), tmp_path, "")
    (tmp_path / name).unlink()
    for _ in range(2):  # its own are replaced
        save(Shown(), tmp_path, "")


@pytest.mark.parametrize(
    ("given", "pretrained", "weights"),
    [(["--no-pretrained"], False, None), (["--weights", "my file.pth"], None, "my file.pth")],
)
def test_the_command_opens_the_same_weights(bench, monkeypatch, given, pretrained, weights):
    monkeypatch.setattr("spanets.sources.open_source", lambda *_, **__: bench.sources["b"])
    parse = make_parser().parse_args
    opened = explore.open_bench(parse(["explore", "spanetv2_nano_pure", *given]))
    command = command_of(opened, "look", [*opened.models], Settings(), "i.jpg")
    told = parse(shlex.split(command)[1:])
    assert told.models == ["spanetv2_nano_pure"]
    assert (told.pretrained, told.weights) == (pretrained, weights)


def test_exported_files(bench, image):
    """Their session cannot be copied: they answer, and panels that need layers say so."""

    class Uncopied(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.forward = network.forward

        def __deepcopy__(self, _):
            raise TypeError("cannot pickle 'InferenceSession' object")

    plain = bench.sources["a"]
    source = replace(plain, word="f.onnx", network=Uncopied(plain.network).eval(), exported=True)
    files = Workbench({"f.onnx": source, "b": bench.sources["b"]}, bench.folder)
    settings = Settings(image, limit=2)
    assert PANELS["compare"].show(files, ["f.onnx", "b"], settings).series
    assert PARTS["band"](files, ["f.onnx"], settings).answers
    for show in (PARTS["look"], PARTS["score_cam"], PARTS["stages"], PANELS["balance"].show):
        with pytest.raises(UserError, match="is an exported file, whose layers cannot be seen"):
            show(files, ["f.onnx"], settings)


def test_a_model_without_score_cam_leaves_the_others_theirs(bench, image, monkeypatch):
    def find(network):
        if type(network).__name__ == "SPANetV2":
            raise UserError("SPANetV2 has no stages")
        return ["stages.3"]

    monkeypatch.setattr("spanets.explore.look.find_stages", find)
    shown = PANELS["look"].show(bench, ["b", "a"], Settings(image))
    assert [title for title in shown.pictures if "Score-CAM" in title] == ["Score-CAM of a"]
    assert shown.notes[-1] == "b: no Score-CAM: SPANetV2 has no stages"


def test_files_instead_of_a_page(small_run, photos, tmp_path, capsys):
    words = ["explore", small_run / "last.ckpt", "--panel", "look", "--image", photos / "cat/0.png"]
    status, out, said = call(capsys, *words, "--out", tmp_path / "out")
    assert status == 0, said
    assert "has no SPAM" in said
    *paths, answers = out.splitlines()
    assert {Path(path).name for path in paths} >= {"numbers.json", "numbers.csv"}
    assert all(Path(path).is_file() for path in paths)
    assert "cat 0." in answers
    status, _, said = call(capsys, *words)
    assert (status, said) == (
        2,
        "spanets: --panel and --out go together; leave both out for the page\n",
    )
