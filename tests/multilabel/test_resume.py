"""A stopped and resumed run on several labels an image is the run that was never stopped."""

from resuming import check_resuming
from small_runs import SMALL
from squares import make_tags

from spanets.multilabel.module import Multilabel

KEYS = {
    **SMALL,
    "model.pretrained": "false",
    "optim.layer_decay": "null",
    "optim.batch_size": 8,
    "optim.ema_decay": 0.9,
    "trainer.epochs": 4,
    "trainer.patience": "null",
}


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, process, monkeypatch):
    for name in ("training.report.plot_curves",):
        monkeypatch.setattr(f"spanets.{name}", lambda *_, **__: None)
    keys = {**KEYS, "data.root": make_tags(tmp_path / "data", 24)}
    words = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
    check_resuming(["multilabel", *words], Multilabel, tmp_path, process, monkeypatch)
