"""The task of object detection, instance segmentation and keypoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from spanets.backbones.dense import DenseBackbone
from spanets.checkpoint import ModelInfo
from spanets.detection import (
    PAPERS,
    build_detector,
    describe_detector,
    has_keypoints,
    has_masks,
)
from spanets.detection.recipe import DetectionRecipe
from spanets.recipe import parse_recipe
from spanets.training.options import EvalOptions, PredictOptions, Views
from spanets.training.task import Picture, Predict, Task
from spanets.weights import LoadReport
from spanets.weights.choosing import Given
from spanets_runtime.errors import UsageError, require

if TYPE_CHECKING:
    import lightning as L

    from spanets.data.loaders import Loaders
    from spanets.data.run_data import RunData
    from spanets.formats.coco.keypoints import Keypoints
    from spanets.sources import Source
    from spanets.training.callbacks import Row
    from spanets.training.report_parts import Examples, Scatter, Table


def _scores_of(head: str) -> tuple[str, ...]:
    """Returns the validation metrics of a kind of detector, the one that selects epochs first."""
    keypoints = ("keypoint_ap",) * has_keypoints(head)
    return (*keypoints, "box_ap", *("mask_ap",) * has_masks(head))


class DetectionTask(Task[DetectionRecipe]):
    """Predicts boxes of objects and, with some detectors, masks or keypoints."""

    name = "detection"
    recipe_type = DetectionRecipe
    supported_options = frozenset(
        {"out", "annotations", "errors", "precision", "score", "tta", "tta_scales", "tta_crops"}
        | {"tile"}
    )
    preprocessing_keys = frozenset({"short_side", "long_side", "mean", "std"})
    score = "val/box_ap"
    metric_labels: ClassVar[Mapping[str, str]] = {
        "train/loss": "loss",
        "val/box_ap": "box AP",
        "val/mask_ap": "mask AP",
        "val/keypoint_ap": "keypoint AP",
    }
    eval_batch = 2

    @classmethod
    def build_model(cls, info: ModelInfo) -> nn.Module:
        """Builds the detector."""
        return build_detector(info.model, info.model_args, len(info.classes), info.head)

    @classmethod
    def check_preprocessing(cls, preprocessing: Mapping[str, Any]) -> None:
        """Checks a checkpoint's image sides, mean and standard deviation."""
        values = dict(preprocessing)
        if unknown := values.keys() - cls.preprocessing_keys:
            raise KeyError(min(unknown, key=str))
        if "short_side" in values:  # the check would compare it with the default training sides
            values["train_short_sides"] = [values["short_side"]] * 2
        if values:
            parse_recipe({"task": cls.name, "data": values}, origin="preprocessing")

    @classmethod
    def make_preprocess(cls, info: ModelInfo, origin: str) -> Any:
        """Makes the transform of evaluation."""
        from spanets.detection.data import evaluation_transform

        return evaluation_transform(info.preprocessing)

    @classmethod
    def make_predictor(cls, source: Source, options: PredictOptions) -> Predict:
        """Returns a function that detects objects."""
        from spanets.detection.predict import ObjectPredictor
        from spanets.detection.views import augment

        if source.exported:
            raise UsageError(
                f"{source.word} is an exported detector, which gives the boxes and scores of all "
                "anchors; predict with the checkpoint it was exported from"
            )
        if options.annotations is not None and options.out is None:
            raise UsageError("--annotations sets the ids in the files of --out; add --out DIR")
        if options.views is not None:
            network = augment(source.network, source.info.head, options.views)
            source = replace(source, network=network)
        return partial(
            ObjectPredictor(source, tiling=options.tile),
            out=options.out,
            min_score=options.min_score,
            annotations=options.annotations,
        )

    @classmethod
    def evaluate(cls, source: Source, options: EvalOptions) -> dict[str, Any]:
        """Measures a detector; see `detection.evaluation.evaluate`."""
        from spanets.detection.evaluation import evaluate

        return evaluate(
            source,
            options.root,
            options.workers,
            options.batch_size or cls.eval_batch,
            options.trusted,
            errors=options.errors,
            score=options.score,
            precision=options.precision,
            views=options.views,
        )

    @classmethod
    def describe_tta(cls, views: Views) -> str:
        """Returns a line about the views whose objects are merged."""
        from spanets.detection.views import COMBINED

        return views.describe(COMBINED)

    @staticmethod
    def describe_metrics(results: Mapping[str, Any]) -> str:
        """Returns the average precisions as lines."""
        from spanets.detection.report import describe_metrics

        return describe_metrics(results)

    @classmethod
    def report_results(cls, results: Mapping[str, Any]) -> list[Table | Scatter]:
        """Returns the average precisions of each class, and the number of each mistake."""
        from spanets.detection.examples import report_results

        return report_results(results)

    @classmethod
    def find_examples(
        cls, source: Source, options: EvalOptions, results: Mapping[str, Any]
    ) -> Examples:
        """Returns images with few and with many mistakes."""
        from spanets.detection.examples import find_examples

        return find_examples(source, options, results)

    @classmethod
    def exportable(cls, source: Source, features_only: bool) -> nn.Module:
        """Returns a RetinaNet without postprocessing, or the backbone of any detector."""
        from spanets.detection.network.exporting import to_dense

        neck: Any = source.network.backbone
        return neck.body if features_only else to_dense(source.network)

    @classmethod
    def make_calibration(cls, info: ModelInfo, origin: str, dynamic: bool) -> Any:
        """Raises a UsageError, because detectors have no 8-bit form."""
        raise UsageError(
            f"--dtype int8 is for classifiers and segmenters, and {origin} is a detector; export "
            "it in float32"
        )

    @classmethod
    def describe_export(cls, info: ModelInfo) -> dict[str, Any]:
        """Adds the detector's settings, which postprocessing needs."""
        return {**super().describe_export(info), "head": info.head}

    def __init__(self, recipe: DetectionRecipe) -> None:
        self.score = f"val/{_scores_of(recipe.model.head)[0]}"
        super().__init__(recipe)
        self.category_ids: list[int] = []
        self.keypoints: Keypoints | None = None

    def score_names(self) -> tuple[str, ...]:
        """Returns the metrics that `trainer.metric` may name."""
        return _scores_of(self.recipe.model.head)

    def make_loaders(self, batch_size: int, processes: int, run_data: RunData) -> Loaders:
        """Makes the loaders of a recipe; see `detection.data.make_loaders`."""
        from spanets.detection.data import make_loaders

        require("faster_coco_eval", "detection")  # fail before training, not at its end
        recipe = self.recipe
        head = recipe.model.head
        rest = recipe.seed, batch_size, processes, has_keypoints(head), run_data
        loaders = make_loaders(recipe.data, has_masks(head), *rest)
        dataset: Any = loaders.train.dataset
        self.category_ids = dataset.data.category_ids
        self.keypoints = dataset.data.keypoints
        return loaders

    def make_info(self, classes: list[str]) -> ModelInfo:
        """Returns the checkpoint metadata, including the category ids and the keypoints' names."""
        from spanets.detection.data import preprocessing_of

        model = self.recipe.model
        try:
            sizes: dict[str, Any] = dict(model.sizes())
            if self.keypoints is not None:
                sizes["keypoints"] = len(self.keypoints.names)
            settings = replace(PAPERS[model.head], **sizes)
        except ValueError as error:
            raise UsageError(f"model.{error}") from None
        described = describe_detector(model.head, model.frozen_stages, settings)
        described["category_ids"] = self.category_ids
        if self.keypoints is not None:
            described["keypoints"] = self.keypoints.describe()
        return self.describe_model(classes, preprocessing_of(self.recipe.data), described)

    def load_weights(self, model: nn.Module, path: Given) -> LoadReport:
        """Loads the backbone's weights from a classifier or detector, ours or the authors'."""
        body: DenseBackbone = model.backbone.body  # type: ignore[union-attr, assignment]
        return body.load(path, self.recipe.model.weights_ema)

    def check_model(self, model: nn.Module, classes: int) -> None:
        """Raises a UsageError for settings that the detector does not support."""
        from spanets.detection.decay import count_layers

        optim = self.recipe.optim
        if self.recipe.trainer.compile:
            raise UsageError("trainer.compile does not go with detectors, whose shapes change")
        if self.recipe.trainer.precision == "bf16-true":
            raise UsageError(
                "trainer.precision is bf16-true, in which boxes are off by up to 4 pixels; "
                "use bf16-mixed"
            )
        for key in ("label_smoothing", "min_lr"):
            if getattr(optim, key):
                raise UsageError(f"optim.{key} is {getattr(optim, key)}, must be 0 for detectors")
        if optim.warmup_epochs and optim.warmup_updates:
            raise UsageError(
                f"optim.warmup_epochs is {optim.warmup_epochs} and optim.warmup_updates "
                f"{optim.warmup_updates}; one must be 0"
            )
        if optim.layer_decay is not None:
            count_layers(name for name, _ in model.named_parameters())

    def make_module(self, model: nn.Module, info: ModelInfo, updates: int) -> L.LightningModule:
        """Makes the Lightning module."""
        from spanets.detection.module import DetectionModule

        return DetectionModule(model, info, self.recipe, updates)

    def pictures(self, history: list[Row], results: Mapping[str, Any]) -> dict[str, Picture]:
        """Returns a figure of learning curves."""
        from spanets.training.report import plot_curves

        metrics = {"val/box_ap": "box AP", "val/box_ap50": "box AP50"}
        metrics |= {"val/mask_ap": "mask AP", "val/keypoint_ap": "keypoint AP"}
        title, loss = self.recipe.model.name, "sum of the losses"
        return {"learning_curve": lambda path: plot_curves(history, path, title, loss, metrics)}
