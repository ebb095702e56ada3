"""Lightning's loggers by name."""

import sys

import pytest
from lightning.pytorch import loggers

from spanets.recipe import load_recipe
from spanets.training.engine import train
from spanets.training.loggers import find_logger, make_logger
from spanets_runtime.errors import UsageError, UserError


def recipe(small_recipe: str, *words: str):
    return load_recipe(small_recipe, list(words))


@pytest.mark.parametrize("name", [n for n in loggers.__all__ if n != "Logger"])
def test_every_logger_of_lightnings_has_its_name(name):
    short = name.removesuffix("Logger").lower()
    for spelling in (short, name, f"lightning.pytorch.loggers.{name}"):
        assert find_logger(spelling) == name


@pytest.mark.parametrize("name", ["os.system", "lightning.pytorch.loggers.Logger", "Logger", ""])
def test_nothing_else_is_looked_up(name):
    with pytest.raises(UsageError, match="allowed: none, comet, csv"):
        find_logger(name)


def test_a_near_miss():
    with pytest.raises(UsageError, match=r"trainer.logger is 'wandd', .*did you mean 'wandb'\?"):
        find_logger("wandd")


def test_csv_in_place_of_tensorboard(small_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("spanets.classification.task.ClassificationTask.pictures", lambda *_: {})
    train(recipe(small_recipe, "--trainer.logger", "csv", "--trainer.epochs", "1"), tmp_path)
    lines = (tmp_path / "csv/metrics.csv").read_text().splitlines()
    assert "train/loss" in lines[0]
    assert (tmp_path / "csv/hparams.yaml").read_text().count("batch_size: 4") == 1
    assert (tmp_path / "metrics.csv").exists()
    assert not (tmp_path / "tensorboard").exists()


def test_none(small_recipe, tmp_path):
    assert make_logger(recipe(small_recipe, "--trainer.logger", "none"), tmp_path) is None


@pytest.mark.parametrize(
    ("name", "package"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("comet", "comet-ml")]
)
def test_a_missing_package_is_named(small_recipe, tmp_path, monkeypatch, name, package):
    module = sys.modules[getattr(loggers, find_logger(name)).__module__]
    available = [key for key in vars(module) if key.endswith("_AVAILABLE")]
    if any(getattr(module, key) for key in available):
        pytest.skip("it is installed here")
    with pytest.raises(UserError) as caught:
        make_logger(recipe(small_recipe, "--trainer.logger", name), tmp_path)
    told = f"trainer.logger is {name}, and {package} is not installed; run: pip install {package}"
    assert str(caught.value) == told


def test_arguments(small_recipe, tmp_path):
    words = ["--trainer.logger", "csv", "--trainer.logger_args"]
    logger = make_logger(recipe(small_recipe, *words, "{prefix: cells}"), tmp_path)
    assert logger._prefix == "cells"
    with pytest.raises(UsageError, match=r"trainer.logger csv with \{'colour': 1\}: .*colour"):
        make_logger(recipe(small_recipe, *words, "{colour: 1}"), tmp_path)
    with pytest.raises(UsageError, match=r"trainer.logger_args.api_key: the run folder stores the"):
        make_logger(recipe(small_recipe, *words, "{api_key: abc}"), tmp_path)
