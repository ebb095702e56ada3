"""The base class of a task, which makes its runs, checkpoints and predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from spanets.data.run_data import RunData
from spanets.recipe import Recipe, parse_recipe
from spanets.training.options import EvalOptions, PredictOptions, Views
from spanets.version import __version__
from spanets.weights import LoadReport, load_weights
from spanets.weights.choosing import Given
from spanets_runtime.errors import UsageError, nearest
from spanets_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    import lightning as L

    from spanets.checkpoint import ModelInfo
    from spanets.data.folds import Folds
    from spanets.data.loaders import Loaders
    from spanets.data.sources.table import TargetReader
    from spanets.sources import Source
    from spanets.training.callbacks import Row
    from spanets.training.report_parts import Examples, Scatter, Table

R = TypeVar("R", bound=Recipe)

Picture = Callable[[Path], object]
"""Function that draws a picture into a PNG file."""

Predict = Callable[[Iterable[Any]], Iterator[Any]]
"""Function from paths of images to predictions, which have `error`, `to_dict` and `str`."""


class Task(ABC, Generic[R]):
    """A task: builds runs from recipes, and evaluates, predicts and exports their checkpoints.

    Reading a recipe or a checkpoint imports this class. So a task's file imports Lightning and the
    wing's other parts only inside the methods that use them.

    Attributes:
        name: Name of the task in recipes and checkpoints.
        recipe_type: Class of its recipes.
        is_image_level: Whether its models map each image to one row of outputs, like timm's
            classifiers, as `embed`, `explain`, `push`, `analyze` and `bench --train` need.
        noun: What a model of the task is called on a model card.
        usage: Lines of Python on a model card, which print what the outputs of `model(image)` say.
        supported_options: Of the options "out", "annotations", "layout", "errors", "calibrate",
            "precision", "score", "tta", "tta_scales", "tta_crops", "tile", "thresholds" and
            "calibrated",
            those for this task.
        preprocessing_keys: Keys of `data` that a checkpoint's preprocessing contains.
        side_key: The key of `data` with the side of the network's input, or None.
        score: Logged name of the validation metric that selects the best epoch; larger is better,
            except for "val/loss". `trainer.metric` chooses another one of `scores`.
        scores: Names of the validation metrics, without "val/".
        proportions: Names of the metrics that are shares of independent images.
        metric_labels: Labels of the metrics in an epoch's line, by logged name; empty means loss
            and score.
        eval_batch: Default batch size of `spanets eval`.
    """

    name: ClassVar[str]
    recipe_type: ClassVar[type[Recipe]]
    is_image_level: ClassVar[bool] = False
    noun: ClassVar[str] = "image model"
    usage: ClassVar[str] = "print(model(image))"
    supported_options: ClassVar[frozenset[str]] = frozenset()
    preprocessing_keys: ClassVar[frozenset[str]] = frozenset()
    side_key: ClassVar[str | None] = None
    score: str
    scores: ClassVar[tuple[str, ...]] = ()
    proportions: ClassVar[frozenset[str]] = frozenset()
    metric_labels: ClassVar[Mapping[str, str]] = {}
    eval_batch: ClassVar[int] = 64

    def __init__(self, recipe: R) -> None:
        self.recipe = recipe
        if recipe.trainer.metric is not None:
            self.score = self._choose_score(recipe.trainer.metric)

    def _choose_score(self, metric: str) -> str:
        known = self.score_names()
        if metric not in known:
            raise UsageError(
                f"trainer.metric is {metric!r}, allowed: {', '.join(known)}{nearest(metric, known)}"
            )
        return f"val/{metric}"

    def score_names(self) -> tuple[str, ...]:
        """Returns the metrics that `trainer.metric` may name."""
        return self.scores or (self.score.removeprefix("val/"),)

    def check_batch(self, size: int) -> None:
        """Raises UsageError if the task cannot train on batches of this size on one device."""

    @abstractmethod
    def make_loaders(self, batch_size: int, processes: int, run_data: RunData) -> Loaders:
        """Reads the data set and returns its loaders.

        Args:
            batch_size: Images in a batch of one process.
            processes: Number of processes that share the images.
            run_data: What the run recorded about its data; a recorded split is used again.

        Raises:
            UserError: the data are missing or cannot be used.
        """

    @classmethod
    def survey_table(cls, data: Any) -> TargetReader | None:
        """Returns what reads the targets of a recipe's table for `spanets stats`.

        Args:
            data: The data section of a recipe of the task.

        Returns:
            The reader; None if each image has one class.

        Raises:
            UsageError: the task has no tables, or a column is missing.
        """
        raise UsageError(f"--task {cls.name} is not for tables")

    def draw_folds(self) -> Folds:
        """Returns the fold of each image, for a cross-validation.

        Raises:
            UsageError: the task has no folds.
            UserError: the data are missing or cannot be divided.
        """
        raise UsageError(f"data.fold all is not for {self.name}")

    def make_info(self, classes: list[str]) -> ModelInfo:
        """Returns the model's metadata, for its checkpoints and for `build_model`."""
        data = self.recipe.to_dict()["data"]
        preprocessing = {key: data[key] for key in sorted(self.preprocessing_keys)}
        if self.side_key is not None:
            preprocessing["input_size"] = [3, data[self.side_key], data[self.side_key]]
        return self.describe_model(classes, preprocessing)

    def describe_model(
        self,
        classes: list[str],
        preprocessing: dict[str, Any],
        head: dict[str, Any] | None = None,
    ) -> ModelInfo:
        """Returns the metadata of the recipe's model; see `ModelInfo`."""
        from spanets.checkpoint import ModelInfo

        return ModelInfo(
            model=self.recipe.model.name,
            model_args=self.recipe.model.args,
            classes=classes,
            preprocessing=preprocessing,
            recipe=self.recipe.to_dict(),
            version=__version__,
            task=self.name,
            head=head or {},
        )

    @classmethod
    @abstractmethod
    def build_model(cls, info: ModelInfo) -> nn.Module:
        """Builds the model that a checkpoint describes, with random weights.

        Raises:
            UsageError: an unknown model, or arguments that it does not accept.
        """

    @classmethod
    def check_preprocessing(cls, preprocessing: Mapping[str, Any]) -> None:
        """Checks a checkpoint's preprocessing against the rules of the recipe's keys.

        Raises:
            UsageError: a value that no recipe of the task can have.
            Exception: values of another structure, which may raise any type.
        """
        values = dict(preprocessing)
        if "input_size" in values and cls.side_key is not None:
            values[cls.side_key] = values.pop("input_size")[-1]
        if unknown := values.keys() - cls.preprocessing_keys - {cls.side_key}:
            raise KeyError(min(unknown, key=str))
        if values:
            parse_recipe({"task": cls.name, "data": values}, origin="preprocessing")

    @classmethod
    def make_preprocess(cls, info: ModelInfo, origin: str) -> Any:
        """Returns the evaluation transform: from an RGB Pillow image to the network's input.

        Args:
            info: Metadata of the model.
            origin: Source of the metadata, for messages.

        Raises:
            UserError: the preprocessing is damaged.
        """
        return Preprocessing.parse(info.preprocessing, origin)

    @classmethod
    @abstractmethod
    def make_predictor(cls, source: Source, options: PredictOptions) -> Predict:
        """Returns a function that predicts images.

        Raises:
            UsageError: the task does not support an option.
        """

    @classmethod
    def describe_tta(cls, views: Views) -> str:
        """Returns a line about the views that `tta` combines."""
        return views.describe("results combined")

    def load_weights(self, model: nn.Module, path: Given) -> LoadReport:
        """Loads the initial weights of a run, from a file or by name.

        Raises:
            WeightsError: the file is unreadable, or its weights do not fit.
        """
        ema = self.recipe.model.weights_ema
        return load_weights(model, path, reset_classifier=True, ema=ema)

    def check_model(self, model: nn.Module, classes: int) -> None:
        """Raises UsageError if the model cannot be trained on the recipe's images."""

    def check_batch_norm(self, model: nn.Module, batch: int) -> None:
        """Raises UsageError if `batch` images on one device are too few for batch norm."""

    @abstractmethod
    def make_module(self, model: nn.Module, info: ModelInfo, updates: int) -> L.LightningModule:
        """Returns the Lightning module of the model, for `updates` optimizer updates an epoch."""

    def pictures(self, history: list[Row], results: Mapping[str, Any]) -> dict[str, Picture]:
        """Returns functions that draw the pictures at the end of a run, by name."""
        from spanets.training.report import plot_curves

        title, metrics = self.recipe.model.name, {self.score: self.score.removeprefix("val/")}
        return {"learning_curve": lambda path: plot_curves(history, path, title, "loss", metrics)}

    @classmethod
    def finish(cls, checkpoints: Sequence[Path], options: EvalOptions) -> list[str]:
        """Adds to the checkpoints of a finished run what needs its trained weights.

        Args:
            checkpoints: The checkpoints.
            options: Options for reading the run's validation images.

        Returns:
            Lines for the user.
        """
        return []

    @classmethod
    @abstractmethod
    def evaluate(cls, source: Source, options: EvalOptions) -> dict[str, Any]:
        """Evaluates a model of this task.

        Args:
            source: A checkpoint, or for classifiers also an exported file.
            options: The options of the evaluation.

        Returns:
            Values for JSON, with "checkpoint", "data", "images", "metrics" by name; perhaps "notes"
            (lines about data that was left out, renamed or changed) and more.

        Raises:
            UserError: the checkpoint is unreadable, or the data does not fit it.
        """

    @classmethod
    def evaluate_folds(
        cls, folder: Path, checkpoints: Mapping[int, Path], options: EvalOptions
    ) -> dict[str, Any] | None:
        """Evaluates the validation images of all folds of a cross-validation together.

        Args:
            folder: The folder of the folds.
            checkpoints: The checkpoint of each fold.
            options: The options of the evaluation.

        Returns:
            See `evaluate`; None if the task cannot do it.

        Raises:
            UserError: see `evaluate`.
        """
        return None

    @staticmethod
    def describe_metrics(results: Mapping[str, Any]) -> str:
        """Returns the results of `evaluate` as lines of text."""
        lines = [f"{results['checkpoint']} on {results['data']} ({results['images']} images)"]
        for name, value in results["metrics"].items():
            lines.append(f"  {name:18} {'undefined' if value is None else f'{value:.4f}'}")
        return "\n".join(lines)

    @classmethod
    def report_results(cls, results: Mapping[str, Any]) -> list[Table | Scatter]:
        """Returns what the page of a run shows of its results, besides the metrics.

        Args:
            results: The contents of results.json.
        """
        return []

    @classmethod
    def find_examples(
        cls, source: Source, options: EvalOptions, results: Mapping[str, Any]
    ) -> Examples | None:
        """Returns evaluation images with good and bad predictions; None if the task shows none.

        Args:
            source: A checkpoint of the task.
            options: Options for reading the images.
            results: The contents of results.json; {} for a run that is not finished.

        Raises:
            UserError: the images cannot be read.
        """
        return None

    @classmethod
    def exportable(cls, source: Source, features_only: bool) -> nn.Module:
        """Returns a form of the network that is one graph from images to outputs.

        Args:
            source: A checkpoint of the task.
            features_only: Return only the backbone, which outputs one map a stage.

        Raises:
            UsageError: the task has no such form.
        """
        if features_only:
            raise UsageError(f"--features-only: {source.word} has no backbone to export")
        return source.network

    @classmethod
    def publishable(cls, source: Source) -> tuple[nn.Module, dict[str, Any]]:
        """Returns the network to publish in timm's format, and metadata beside timm's own.

        Raises:
            UserError: the network cannot be published.
        """
        return source.network, {}

    @classmethod
    def interpret(cls, info: ModelInfo, outputs: Tensor) -> Tensor:
        """Returns what outputs (B, outputs) say: probabilities, or values in the data's units."""
        return outputs.float().softmax(1)

    @classmethod
    def evidence(cls, outputs: Tensor) -> Tensor:
        """Returns outputs (B, outputs) in the form in which Score-CAM compares them."""
        return outputs.float().softmax(1)

    @classmethod
    def most_telling(cls, info: ModelInfo, outputs: Tensor) -> int:
        """Returns the number of the output to explain, of those (outputs,) of an image."""
        return int(outputs.argmax())

    @classmethod
    def make_calibration(cls, info: ModelInfo, origin: str, dynamic: bool) -> Any:
        """Returns the transform of the images that calibrate an int8 export.

        Args:
            info: Metadata of the model, with the preprocessing of the exported file.
            origin: Source of the metadata, for messages.
            dynamic: Whether the export has dynamic sizes.

        Raises:
            UsageError: the task cannot export to int8.
        """
        return cls.make_preprocess(info, origin)

    @classmethod
    def describe_export(cls, info: ModelInfo) -> dict[str, Any]:
        """Returns the task's metadata of an exported file, besides model and preprocessing."""
        return {"task": cls.name, "classes": info.classes}
