"""What a task is: one class in its wing, from which runs, checkpoints and predictions are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from torch import nn

from spanets.backbones.factory import create_model
from spanets.data.kept import Kept
from spanets.recipe import Recipe, parse_recipe
from spanets.version import __version__
from spanets.weights import LoadReport, load_weights
from spanets_runtime.errors import UsageError
from spanets_runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    import lightning as L

    from spanets.checkpoint import ModelInfo
    from spanets.data.loaders import Loaders
    from spanets.sources import Source
    from spanets.training.callbacks import Row

R = TypeVar("R", bound=Recipe)

Picture = Callable[[Path], object]
"""Draws a picture into a PNG file."""

Predict = Callable[[Iterable[Any]], Iterator[Any]]
"""From paths of images to predictions, which have `error`, `to_dict` and a line for people."""


@dataclass(frozen=True)
class PredictOptions:
    """What a user may ask of a prediction; each task takes its own of these.

    Attributes:
        top: Classes for each image.
        out: Folder for pictures and files.
        min_score: Of the objects that are shown.
        annotations: A file in COCO's format whose numbers of images and classes are to be used.
    """

    top: int = 5
    out: Path | None = None
    min_score: float = 0.5
    annotations: Path | None = None


@dataclass(frozen=True)
class EvalOptions:
    """What a user may ask of an evaluation; each task takes its own of these.

    Attributes:
        root: A data set; None takes the run's own test part, or where it has none its validation
            part.
        layout: How the data set is laid out, where a task knows several ways; None looks.
        workers: Processes that load images.
        batch_size: Images at a time; None takes the task's `eval_batch`.
        trusted: Let the checkpoint's recipe decide which images are read; see `own_data`.
    """

    root: str | None = None
    layout: str | None = None
    workers: int = 2
    batch_size: int | None = None
    trusted: bool = False


class Task(ABC, Generic[R]):
    """How the runs of one task are made from a recipe, and what is done with their checkpoints.

    The class is imported to read a recipe or a checkpoint, so its file imports Lightning and the
    wing's other parts where they are used.

    Attributes:
        name: In recipes and checkpoints.
        recipe_type: Of its recipes.
        is_classifier: Its models map images to logits of classes, as timm's do; `explain`, `push`,
            `analyze` and `bench --train` take them.
        takes: Options of `PredictOptions` and `EvalOptions` that are not for every task, and that
            this one takes: "out", "annotations", "layout".
        preprocessing_keys: Keys of a checkpoint's preprocessing that are those of `data`.
        side_key: The key of `data` that is the side of a network's input, or None.
        score: The metric of validation that tells the best epoch, as logged; larger is better.
        shown: What the line of an epoch shows: logged names, and the words for them; if empty, the
            loss and the score.
        eval_batch: Images that `spanets eval` takes at a time unless told otherwise.
    """

    name: ClassVar[str]
    recipe_type: ClassVar[type[Recipe]]
    is_classifier: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset()
    preprocessing_keys: ClassVar[frozenset[str]] = frozenset()
    side_key: ClassVar[str | None] = None
    score: ClassVar[str]
    shown: ClassVar[Mapping[str, str]] = {}
    eval_batch: ClassVar[int] = 64

    def __init__(self, recipe: R) -> None:
        self.recipe = recipe

    def check_batch(self, size: int) -> None:
        """Raises a UsageError if a batch of this size on one device cannot be trained on."""

    @abstractmethod
    def make_loaders(self, batch_size: int, processes: int, kept: Kept) -> Loaders:
        """Reads the data set and makes its loaders.

        Args:
            batch_size: Images in a batch of one process.
            processes: That share the images.
            kept: What the run knows of its data, whose split is kept.

        Raises:
            UserError: no such data, or data that cannot be used.
        """

    def make_info(self, classes: list[str]) -> ModelInfo:
        """Describes the model, for its checkpoints and for `build_model`."""
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
        """Returns what checkpoints say of the recipe's model; see `ModelInfo`."""
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
            UsageError: an unknown model, or arguments that it does not take.
        """

    @classmethod
    def check_preprocessing(cls, preprocessing: Mapping[str, Any]) -> None:
        """Checks what a checkpoint says of its preprocessing by the rules of a recipe's keys.

        Raises:
            UsageError: a value that no recipe of the task can have.
            Exception: one of another make; of any type that reading it raises.
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
        """Makes what turns an RGB image of Pillow's into the network's input, as for evaluation.

        Args:
            info: Of the model.
            origin: Where that is from, for messages.

        Raises:
            UserError: damaged preprocessing.
        """
        return Preprocessing.parse(info.preprocessing, origin)

    @classmethod
    @abstractmethod
    def make_predictor(cls, source: Source, options: PredictOptions) -> Predict:
        """Returns what predicts for images.

        Raises:
            UsageError: options that do not go with the task.
        """

    def load_weights(self, model: nn.Module, path: str | Path) -> LoadReport:
        """Loads the file that a run starts from.

        Raises:
            WeightsError: an unreadable file, or weights that do not fit.
        """
        ema = self.recipe.model.weights_ema
        return load_weights(model, path, reset_classifier=True, ema=ema)

    def check_model(self, model: nn.Module, classes: int) -> None:
        """Raises a UsageError if the model cannot be trained on the recipe's images."""

    def check_batch_norm(self, model: nn.Module, batch: int) -> None:
        """Raises a UsageError if so many images on one device are too few for batch norm."""

    @abstractmethod
    def make_module(self, model: nn.Module, info: ModelInfo, updates: int) -> L.LightningModule:
        """Makes what trains the model; an epoch has so many updates of the optimizer."""

    def pictures(self, history: list[Row], results: Mapping[str, Any]) -> dict[str, Picture]:
        """Returns the pictures that end a run, not yet drawn, by what they show."""
        from spanets.training.report import plot_curves

        title, metrics = self.recipe.model.name, {self.score: self.score.removeprefix("val/")}
        return {"learning_curve": lambda path: plot_curves(history, path, title, "loss", metrics)}

    @classmethod
    @abstractmethod
    def evaluate(cls, source: Source, options: EvalOptions) -> dict[str, Any]:
        """Measures a model of this task.

        Args:
            source: A checkpoint; of a classifier also an exported file.
            options: Those that the task `takes`, and those of every task.

        Returns:
            Plain values: "checkpoint", "data", "images", "metrics" by name; perhaps "notes" (lines
            about what of the data was left out, renamed or changed) and more.

        Raises:
            UserError: an unreadable checkpoint, or data that does not fit it.
        """

    @staticmethod
    def describe_metrics(results: Mapping[str, Any]) -> str:
        """Returns what `evaluate` measured as lines for people."""
        lines = [f"{results['checkpoint']} on {results['data']} ({results['images']} images)"]
        for name, value in results["metrics"].items():
            lines.append(f"  {name:18} {'undefined' if value is None else f'{value:.4f}'}")
        return "\n".join(lines)

    @classmethod
    def exportable(cls, source: Source, features_only: bool) -> nn.Module:
        """Returns the network in a form that is one graph from images to outputs.

        Args:
            source: A checkpoint of the task.
            features_only: The backbone alone, which gives one map for each stage.

        Raises:
            UsageError: there is no such form.
        """
        if features_only:
            raise UsageError(f"--features-only: {source.word} has no backbone to be exported")
        return source.network

    @classmethod
    def make_calibration(cls, info: ModelInfo, origin: str, dynamic: bool) -> Any:
        """Makes the inputs by which an 8-bit export finds the range of every map.

        Args:
            info: Of the model, with the preprocessing of the exported file.
            origin: Where that is from, for messages.
            dynamic: Whether it is exported with free sizes.

        Raises:
            UsageError: there is no such form.
        """
        return cls.make_preprocess(info, origin)

    @classmethod
    def describe_export(cls, info: ModelInfo) -> dict[str, Any]:
        """Returns what an exported file carries beside model, version and preprocessing."""
        return {"task": cls.name, "classes": info.classes}


def build_features(source: Source) -> nn.Module:
    """Builds the backbone of a classifier or segmenter as timm does, with the weights it has.

    Args:
        source: A checkpoint; it is left as it was.
    """
    features = create_model(source.info.model, source.info.model_args, features_only=True)
    load_weights(features, source.network.state_dict())
    return features.eval()
