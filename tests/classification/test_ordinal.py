"""Classes with an order: numbering, the squared earth mover's distance, metrics of ranks."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_runs import SMALL, call, make_photos

from spanets.checkpoint import read_own
from spanets.classification.losses import ClassLoss
from spanets.classification.ordinal import rank_metrics


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    noise = np.random.default_rng(seed)
    true, answered = noise.integers(0, 4, 50), noise.integers(0, 5, 50)
    confusion = metrics.confusion_matrix(true, answered, labels=range(5))
    found = rank_metrics(torch.tensor(confusion))
    expected = metrics.cohen_kappa_score(true, answered, labels=range(5), weights="quadratic")
    assert found["kappa_quadratic"] == pytest.approx(expected, abs=1e-9)
    assert found["rank_mae"] == pytest.approx(np.abs(true - answered).mean())


def test_one_class_has_no_kappa():
    assert np.isnan(rank_metrics(torch.tensor([[0, 0], [0, 9]]))["kappa_quadratic"])


def test_the_loss_grows_with_the_distance():
    loss = ClassLoss(is_ordinal=True)
    answers = 100 * F.one_hot(torch.arange(4), 4).float()
    losses = [loss(answers[i : i + 1], torch.tensor([0])).item() for i in range(4)]
    assert losses == pytest.approx([0, 1, 2, 3])  # the squared gaps of 0/1 distributions
    weighted = ClassLoss([0.5, 1, 1, 1], is_ordinal=True)
    assert weighted(answers[1:2], torch.tensor([0])).item() == pytest.approx(0.5)
    both = torch.tensor([[0.5, 0.5, 0, 0]])  # soft targets, as of mixup
    assert loss(answers[:1], both).item() == pytest.approx(0.25)


@pytest.fixture
def train(tmp_path, capsys):
    photos = make_photos(tmp_path / "photos", high=8, low=8, medium=8)

    def run(*words):
        keys = {**SMALL, "trainer.epochs": 1, "data.root": photos}
        given = [word for key, value in keys.items() for word in (f"--{key}", value)]
        command = ("train", "photos", *given, *words, "--out", tmp_path / "run")
        return (tmp_path / "run", *call(capsys, *command))

    return run


def test_a_run_by_rank(train, capsys):
    words = ("--data.ordered", "[low, medium, high]", "--optim.loss", "ordinal")
    out, status, _, said = train(*words, "--trainer.metric", "kappa_quadratic")
    assert status == 0, said
    assert "classes are numbered in the order of data.ordered: low < medium < high" in said
    assert read_own(out / "last.ckpt")[0].classes == ["low", "medium", "high"]
    results = json.loads((out / "results.json").read_text())
    assert {"rank_mae", "kappa_quadratic"} <= set(results["metrics"])
    _, printed, _ = call(capsys, "eval", out / "last.ckpt", "--workers", 0, "--json")
    assert json.loads(printed)["metrics"] == pytest.approx(results["metrics"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--optim.loss", "ordinal"], "optim.loss ordinal needs the order of the classes"),
        (["--trainer.metric", "kappa_quadratic"], "trainer.metric kappa_quadratic needs the order"),
        (["--data.ordered", "[low, high]"], "data.ordered does not name the 3 classes of"),
        (["--data.ordered", "[low, low]"], "data.ordered is [low, low], must be two classes or"),
        (["--data.ordered", "[low, medium, hihg]"], "'high' is missing, 'hihg' is new"),
    ],
)
def test_orders_that_cannot_be_used(train, words, expected):
    _, status, _, said = train(*words)
    assert status == 2
    assert expected in said.splitlines()[-1]
