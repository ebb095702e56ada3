"""Fine-tuning: freezing, imbalance, early stopping, resuming, distillation."""

import csv
import json
import math

import pytest
import torch
from small_runs import call, make_photos

import spanets_cli
from spanets.checkpoint import load_checkpoint
from spanets.recipe import load_recipe

FAST = ("--trainer.epochs", "1", "--trainer.val_every", "1")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Three classes of 24, 4 and 1 images: strong imbalance, and a class with a single image."""
    return make_photos(tmp_path_factory.mktemp("uneven"), common=24, rare=4, single=1)


def train(small_recipe, out, *words) -> int:
    return spanets_cli.main(["train", small_recipe, "--out", str(out), *map(str, words)])


def weights(path) -> dict:
    return load_checkpoint(path)[1]


def history(out) -> list[dict]:
    return list(csv.DictReader((out / "metrics.csv").open()))


def test_the_recipe_says_what_the_field_uses():
    recipe = load_recipe("finetune")
    assert recipe.model.pretrained
    assert recipe.optim.layer_decay == 0.9
    assert (recipe.data.mixup, recipe.data.cutmix, recipe.optim.label_smoothing) == (0, 0, 0)
    assert recipe.trainer.patience


@pytest.mark.parametrize("more", [(), ("--optim.ema_decay", "0.9")], ids=["plain", "ema"])
def test_a_linear_probe_trains_the_classifier_alone(
    more, small_recipe, small_run, tmp_path, capsys
):
    """To the last bit: an average of equal weights is these weights."""
    start = small_run / "last.ckpt"
    words = ("--model.weights", start, "--model.freeze", "backbone", *FAST, *more)
    assert train(small_recipe, tmp_path / "run", *words) == 0
    said = capsys.readouterr().err
    assert "frozen: conv1, bn1" in said
    assert "parameters are trained" in said
    before, after = weights(start), weights(tmp_path / "run/last.ckpt")
    changed = {key for key in after if not after[key].equal(before[key])}
    assert changed == {"fc.weight", "fc.bias"}


def test_a_new_classifier_starts_at_zero(uneven, small_recipe, small_run, tmp_path):
    """So the first loss is that of a guess among three classes."""
    words = ("--data.root", uneven, "--model.weights", small_run / "last.ckpt", *FAST)
    stand = ("--optim.lr", "0", "--optim.min_lr", "0", "--optim.warmup_lr", "0")
    assert train(small_recipe, tmp_path / "run", *words, *stand) == 0
    (row,) = history(tmp_path / "run")
    assert float(row["train/loss"]) == pytest.approx(math.log(3), rel=1e-5)


def test_imbalance(uneven, small_recipe, tmp_path, capsys):
    words = ("--data.root", uneven, "--optim.class_weights", "balanced", "--optim.loss", "focal")
    more = ("--data.sampler", "balanced", "--optim.head_lr", "0.01", *FAST)
    out = tmp_path / "run"
    assert train(small_recipe, out, *words, *more, "--trainer.metric", "balanced_accuracy") == 0
    said = capsys.readouterr()
    assert "class weights: single " in said.err
    assert "balanced_accuracy" in said.out
    results = json.loads((out / "results.json").read_text())
    assert results["score"] == "balanced_accuracy"
    assert len(results["recall"]) == 3
    defined = [recall for recall in results["recall"] if recall is not None]
    mean = sum(defined) / len(defined)
    assert results["metrics"]["balanced_accuracy"] == pytest.approx(mean)


@pytest.mark.parametrize("sampler", ["balanced"])
def test_a_resumed_run_equals_an_uninterrupted_one(uneven, small_recipe, tmp_path, sampler):
    words = ("--data.root", uneven, "--data.sampler", sampler, "--model.freeze", "layer1")
    assert train(small_recipe, tmp_path / "whole", *words) == 0
    part = tmp_path / "part"
    assert train(small_recipe, part, *words, "--trainer.save_every", "1") == 0
    # Start again from the first epoch's checkpoint: previous.ckpt lies within the second epoch.
    (part / "last.ckpt").unlink()
    (part / "previous.ckpt").rename(part / "last.ckpt")
    assert train(small_recipe, part, *words, "--resume") == 0
    whole, again = weights(tmp_path / "whole/last.ckpt"), weights(part / "last.ckpt")
    assert all(value.equal(whole[key]) for key, value in again.items())


def test_early_stopping(small_recipe, tmp_path, capsys):
    words = ("--trainer.epochs", "9", "--trainer.patience", "1", "--optim.lr", "0")
    out = tmp_path / "run"
    # Without learning, no epoch is better than the first one.
    words = (*words, "--optim.min_lr", "0", "--optim.warmup_lr", "0", "--model.freeze", "backbone")
    assert train(small_recipe, out, *words) == 0
    assert len(history(out)) == 2
    results = json.loads((out / "results.json").read_text())
    assert results["best_epoch"] == 1
    assert results["checkpoint"].endswith("best.ckpt")
    assert "stopped early" in capsys.readouterr().err
    # A run that has stopped early is over; resuming changes nothing.
    before = (out / "metrics.csv").read_bytes()
    assert train(small_recipe, out, *words, "--resume") == 0
    assert (out / "metrics.csv").read_bytes() == before


@pytest.mark.slow
def test_the_metric_may_be_the_loss(small_recipe, tmp_path):
    out = tmp_path / "run"
    assert train(small_recipe, out, "--trainer.metric", "loss") == 0
    results = json.loads((out / "results.json").read_text())
    losses = [float(row["val/loss"]) for row in history(out)]
    assert results["best_score"] == pytest.approx(min(losses))
    assert results["best_epoch"] == 1 + losses.index(min(losses))


@pytest.mark.parametrize(
    "more",
    [
        pytest.param((), marks=pytest.mark.slow),
        ("--distill.features", "1", "--data.mixup", "0.2"),
        # The teacher and the average stay in float32.
        ("--distill.features", "1", "--trainer.precision", "bf16-true", "--optim.ema_decay", "0.9"),
    ],
)
def test_distillation_from_a_checkpoint(small_recipe, small_run, tmp_path, more):
    teacher = small_run / "last.ckpt"
    before = teacher.read_bytes()
    words = ("--distill.teacher", teacher, *FAST, *more)
    out = tmp_path / "run"
    assert train(small_recipe, out, *words) == 0
    assert teacher.read_bytes() == before
    assert set(weights(out / "last.ckpt")) == set(weights(teacher))  # nothing of the teacher


def test_a_teacher_that_does_not_fit(small_recipe, uneven, small_run, tmp_path, capsys):
    words = ("--data.root", uneven, "--distill.teacher", small_run / "last.ckpt", *FAST)
    assert train(small_recipe, tmp_path / "a", *words) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "has 2 classes, such as cat, dog; they must be the 3 of the run" in said
    features = ("--distill.weight", "0", "--distill.features", "1")
    assert train(small_recipe, tmp_path / "b", *words, *features) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trainer.metric", "acuracy"), "did you mean 'accuracy'"),
        (("--optim.class_weights", "balance"), "must be balanced or effective or a list of num"),
        (("--optim.class_weights", "1,2,3"), "has 3 numbers, must have one for each of the 2"),
        (("--model.pretrained", "true", "--model.weights", "x.pth"), "leave one of them out"),
        (("--model.freeze", "*"), "leaves nothing to train"),
        (("--optim.lr", "0", "--optim.head_lr", "0.01"), "--model.freeze backbone --optim.lr 0.01"),
        (
            ("--optim.lr", "1e-6", "--optim.min_lr", "1e-5"),
            "optim.min_lr is 1e-05, above the learning rate 1e-06 (optim.lr)",
        ),
        (("--model.args.num_classes", "4"), "num_classes is 4, and the data set has 2; leave out"),
        (
            ("--trainer.logger_args", "{max_queu: 1}"),
            "logger tensorboard with {'max_queu': 1}: no argument 'max_queu'; did you mean 'max_qu",
        ),
    ],
)
def test_mistakes(small_recipe, tmp_path, capsys, words, said):
    status, _, err = call(capsys, "train", small_recipe, "--out", tmp_path / "run", *words)
    assert status == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run/last.ckpt").exists()


@pytest.mark.slow
def test_torch_is_not_seeded_by_the_teacher(small_recipe, small_run, tmp_path):
    """A teacher that is never used (weight 0 without features) changes nothing."""
    words = ("--distill.teacher", small_run / "last.ckpt", "--distill.weight", "0", *FAST)
    assert train(small_recipe, tmp_path / "with", *words) == 0
    assert train(small_recipe, tmp_path / "without", *FAST) == 0
    one, other = (weights(tmp_path / name / "last.ckpt") for name in ("with", "without"))
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=0, atol=0)
