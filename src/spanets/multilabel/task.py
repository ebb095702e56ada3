"""The task of several labels an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from spanets.checkpoint import ModelInfo
from spanets.multilabel.recipe import MultilabelData, MultilabelRecipe
from spanets.training.image_level import ImageLevelTask
from spanets.training.options import EvalOptions, PredictOptions
from spanets.training.task import Picture, Predict
from spanets_runtime.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import lightning as L

    from spanets.data.folds import Folds
    from spanets.data.loaders import Loaders
    from spanets.data.run_data import RunData
    from spanets.data.sources.table import TargetReader
    from spanets.sources import Source
    from spanets.training.callbacks import Row
    from spanets.training.report_parts import Examples, Scatter, Table


class MultilabelTask(ImageLevelTask[MultilabelRecipe]):
    """Predicts any number of labels for each image."""

    name = "multilabel"
    recipe_type = MultilabelRecipe
    noun = "image model of several labels an image"
    usage = (
        "probabilities = model(image).sigmoid()[0]\n"
        'print(dict(zip(model.pretrained_cfg["label_names"], probabilities.tolist())))'
    )
    supported_options = frozenset({"thresholds"})
    score = "val/map"
    scores = ("map", "f1_micro", "f1_macro", "loss")
    metric_labels: ClassVar[Mapping[str, str]] = {
        "train/loss": "loss",
        "val/loss": "val loss",
        "val/map": "val mAP",
    }

    counts: Sequence[int] = ()
    """Number of training images with each label, once the loaders are made."""
    images = 0
    """Number of training images, once the loaders are made."""

    @classmethod
    def make_predictor(cls, source: Source, options: PredictOptions) -> Predict:
        """Returns a function that labels images."""
        from spanets.multilabel.predict import Tagger

        return partial(Tagger(source), top=options.top)

    @classmethod
    def evaluate(cls, source: Source, options: EvalOptions) -> dict[str, Any]:
        """Measures a model; see `multilabel.evaluation`."""
        from spanets.multilabel.evaluation import evaluate

        return evaluate(source, options)

    @classmethod
    def finish(cls, checkpoints: Sequence[Path], options: EvalOptions) -> list[str]:
        """Chooses thresholds on the validation images and stores them in the checkpoints."""
        from spanets.multilabel.evaluation import finish

        return finish(checkpoints, options)

    @staticmethod
    def describe_metrics(results: Mapping[str, Any]) -> str:
        """Returns the metrics as lines."""
        from spanets.multilabel.report import describe_metrics

        return describe_metrics(results)

    @classmethod
    def report_results(cls, results: Mapping[str, Any]) -> list[Table | Scatter]:
        """Returns the numbers of each label, lowest average precision first."""
        from spanets.multilabel.examples import report_results

        return report_results(results)

    @classmethod
    def find_examples(
        cls, source: Source, options: EvalOptions, results: Mapping[str, Any]
    ) -> Examples:
        """Returns images whose labels have high or low probabilities."""
        from spanets.multilabel.examples import find_examples

        return find_examples(source, options)

    @classmethod
    def describe_export(cls, info: ModelInfo) -> dict[str, Any]:
        """Returns the metadata of an exported file, with the thresholds if there are any."""
        found, thresholds = super().describe_export(info), info.calibration.get("thresholds")
        return found if thresholds is None else {**found, "thresholds": thresholds}

    @classmethod
    def publishable(cls, source: Source) -> tuple[nn.Module, dict[str, Any]]:
        """Returns the network, and the thresholds."""
        return source.network, {"calibration": source.info.calibration}

    @classmethod
    def interpret(cls, info: ModelInfo, outputs: Tensor) -> Tensor:
        """Returns the probability of each label."""
        return outputs.float().sigmoid()

    @classmethod
    def evidence(cls, outputs: Tensor) -> Tensor:
        """Returns the probability of each label."""
        return outputs.float().sigmoid()

    @classmethod
    def survey_table(cls, data: MultilabelData) -> TargetReader:
        """Returns what reads the labels of a recipe's table."""
        from spanets.multilabel.tables import make_reader

        assert data.root is not None
        return make_reader(data.root, data)

    def draw_folds(self) -> Folds:
        """Returns the fold of each image of the recipe's table."""
        from spanets.data.image_level.tables import draw_folds, source_of
        from spanets.multilabel.tables import make_reader

        data = self.recipe.data
        if data.root is None or source_of(data) != "table":
            raise UsageError("data.fold all is for tables; give one: --data.root labels.csv")
        return draw_folds(data, make_reader(data.root, data))

    def make_loaders(self, batch_size: int, processes: int, run_data: RunData) -> Loaders:
        """Makes the loaders of a recipe; see `multilabel.data.make_loaders`."""
        from spanets.multilabel.data import make_loaders

        loaders, self.counts = make_loaders(self.recipe, batch_size, processes, run_data)
        self.images = len(loaders.train.dataset)  # type: ignore[arg-type]
        return loaders

    def make_module(self, model: nn.Module, info: ModelInfo, updates: int) -> L.LightningModule:
        """Makes the Lightning module."""
        from spanets.multilabel.module import Multilabel

        return Multilabel(model, info, self.recipe, updates, self.counts, self.images)

    def pictures(self, history: list[Row], results: Mapping[str, Any]) -> dict[str, Picture]:
        """Returns a figure of learning curves."""
        from spanets.training.report import plot_curves

        metrics = {"val/map": "mAP", "val/f1_micro": "F1 (micro)", "val/f1_macro": "F1 (macro)"}
        title, loss = self.recipe.model.name, "binary cross entropy"
        return {
            "learning_curve": lambda path: plot_curves(history, path, title, loss, metrics),
        }
