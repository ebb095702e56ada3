"""The task of semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from spanets.backbones.dense import DenseBackbone
from spanets.checkpoint import ModelInfo
from spanets.segmentation.network.segmenter import build_segmenter
from spanets.segmentation.recipe import SegmentationRecipe
from spanets.training.features import build_features
from spanets.training.options import EvalOptions, PredictOptions, Views
from spanets.training.task import Picture, Predict, Task
from spanets.weights import LoadReport
from spanets.weights.choosing import Given
from spanets_runtime.errors import UsageError, first_line
from spanets_runtime.onnx import MIN_FREE_SIDE
from spanets_runtime.resize_to_fit import ResizeToFit

if TYPE_CHECKING:
    import lightning as L

    from spanets.data.loaders import Loaders
    from spanets.data.run_data import RunData
    from spanets.sources import Source
    from spanets.training.callbacks import Row
    from spanets.training.report_parts import Examples, Scatter, Table


class SegmentationTask(Task[SegmentationRecipe]):
    """Predicts the class of every pixel."""

    name = "segmentation"
    recipe_type = SegmentationRecipe
    supported_options = frozenset({"out", "errors", "tta", "tta_scales", "tta_crops", "tile"})
    # `read_numbers` checks the numbers that masks are written with.
    preprocessing_keys = frozenset({"resize", "test", "slide", "mean", "std"})
    mask_keys: ClassVar[frozenset[str]] = frozenset({"first", "values"})
    side_key = "crop"
    score = "val/mIoU"
    scores = ("mIoU", "loss")
    metric_labels: ClassVar[Mapping[str, str]] = {
        "train/loss": "loss",
        "val/loss": "val loss",
        "val/mIoU": "val mIoU",
    }
    eval_batch = 1

    @classmethod
    def build_model(cls, info: ModelInfo) -> nn.Module:
        """Builds the segmenter."""
        return build_segmenter(info.model, info.model_args, len(info.classes), info.head)

    @classmethod
    def check_preprocessing(cls, preprocessing: Mapping[str, Any]) -> None:
        """Checks the preprocessing, except the numbers that masks are written with."""
        super().check_preprocessing(
            {key: value for key, value in preprocessing.items() if key not in cls.mask_keys}
        )

    @classmethod
    def make_preprocess(cls, info: ModelInfo, origin: str) -> ResizeToFit:
        """Makes the transform of evaluation."""
        return ResizeToFit.parse(info.preprocessing, origin)

    @classmethod
    def make_predictor(cls, source: Source, options: PredictOptions) -> Predict:
        """Returns a function that writes masks."""
        from spanets.segmentation.predict import MaskPredictor

        if options.out is None:
            raise UsageError(f"{source.word} finds masks: name a folder for them with --out DIR")
        predictor = MaskPredictor(source, tiling=options.tile, views=options.views)
        return partial(predictor, out=options.out)

    @classmethod
    def evaluate(cls, source: Source, options: EvalOptions) -> dict[str, Any]:
        """Measures a segmenter; see `segmentation.evaluation.evaluate`."""
        from spanets.segmentation.evaluation import evaluate

        return evaluate(
            source,
            options.root,
            options.workers,
            options.batch_size or cls.eval_batch,
            options.trusted,
            errors=options.errors,
            views=options.views,
        )

    @classmethod
    def describe_tta(cls, views: Views) -> str:
        """Returns a line about the views that are averaged."""
        from spanets.segmentation.views import COMBINED

        return views.describe(COMBINED)

    @staticmethod
    def describe_metrics(results: Mapping[str, Any]) -> str:
        """Returns the metrics as lines."""
        from spanets.segmentation.report import describe_metrics

        return describe_metrics(results)

    @classmethod
    def report_results(cls, results: Mapping[str, Any]) -> list[Table | Scatter]:
        """Returns the IoU of each class, and the classes that are confused most."""
        from spanets.segmentation.examples import report_results

        return report_results(results)

    @classmethod
    def find_examples(
        cls, source: Source, options: EvalOptions, results: Mapping[str, Any]
    ) -> Examples:
        """Returns images of high and low mean IoU."""
        from spanets.segmentation.examples import find_examples

        return find_examples(source, options)

    @classmethod
    def exportable(cls, source: Source, features_only: bool) -> nn.Module:
        """Returns the segmenter, or its backbone as timm builds it."""
        return build_features(source) if features_only else source.network

    @classmethod
    def make_calibration(cls, info: ModelInfo, origin: str, dynamic: bool) -> Any:
        """Returns the preprocessing of calibration: whole images, large enough for the exporter."""
        if not dynamic:
            raise UsageError("--dtype int8 of a segmenter needs free sizes; leave out --static")
        return partial(cls.make_preprocess(info, origin), least=MIN_FREE_SIDE)

    def check_batch(self, size: int) -> None:
        """Raises a UsageError for a batch of one image, for which batch norm has no variance."""
        if size < 2:
            raise UsageError(
                "optim.batch_size gives each device one image, and batch norm needs two; raise it"
            )

    def make_loaders(self, batch_size: int, processes: int, run_data: RunData) -> Loaders:
        """Makes the loaders of a recipe; see `segmentation.data.make_loaders`."""
        from spanets.segmentation.data import make_loaders

        return make_loaders(self.recipe, batch_size, processes, run_data)

    def make_info(self, classes: list[str]) -> ModelInfo:
        """Returns the checkpoint metadata of the segmenter."""
        from spanets.segmentation.data import preprocessing_of

        model = self.recipe.model
        return self.describe_model(
            classes,
            preprocessing_of(self.recipe.data, classes),
            {"kind": model.head, "args": model.head_args, "frozen_stages": model.frozen_stages},
        )

    def load_weights(self, model: nn.Module, path: Given) -> LoadReport:
        """Loads the backbone's weights from a classifier or segmenter, ours or the authors'."""
        body: DenseBackbone = model.backbone  # type: ignore[assignment]
        return body.load(path, self.recipe.model.weights_ema)

    def check_model(self, model: nn.Module, classes: int) -> None:
        """Raises a UsageError if the backbone does not take the recipe's crops."""
        name, side = self.recipe.model.name, self.recipe.data.crop
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(1, 3, side, side))
        # Models check sizes in different ways, and raise any kind of error.
        except Exception as error:
            raise UsageError(
                f"model {name} cannot take images of {side}x{side} pixels ({first_line(error)}); "
                "set data.crop or model.args"
            ) from error
        model.train()

    def make_module(self, model: nn.Module, info: ModelInfo, updates: int) -> L.LightningModule:
        """Makes the Lightning module."""
        from spanets.segmentation.module import Segmentation

        return Segmentation(model, info, self.recipe, updates)

    def pictures(self, history: list[Row], results: Mapping[str, Any]) -> dict[str, Picture]:
        """Returns figures of learning curves and of example predictions."""
        from spanets.segmentation.evaluation import evaluation_images
        from spanets.segmentation.report import plot_examples
        from spanets.sources import open_checkpoint
        from spanets.training.report import plot_curves

        metrics = {f"val/{name}": name for name in ("mIoU", "mAcc", "aAcc")}
        title, loss = self.recipe.model.name, "cross entropy"

        def draw_examples(path: Path) -> None:
            source = open_checkpoint(results["checkpoint"])
            _, samples = evaluation_images(source, trusted=True)
            plot_examples(source, samples, path)

        return {
            "learning_curve": lambda path: plot_curves(history, path, title, loss, metrics),
            "examples": draw_examples,
        }
