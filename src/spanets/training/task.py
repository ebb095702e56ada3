"""What the engine has to know of a task; a task that has a `Plan` can be run by it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import lightning as L
from torch import nn

from spanets.checkpoint import Card
from spanets.data.kept import Kept
from spanets.data.loaders import Loaders
from spanets.recipe import Recipe
from spanets.training.callbacks import Row
from spanets.weights import LoadReport, load_weights

R = TypeVar("R", bound=Recipe)

Picture = Callable[[Path], object]
"""Draws a picture into a PNG file."""


class Plan(ABC, Generic[R]):
    """How the runs of one task are made from a recipe.

    Attributes:
        score: The metric of validation that tells the best epoch, as logged; larger is better.
        shown: What the line of an epoch shows: logged names, and the words for them.
        eval_batch: Images that `spanets eval` takes at a time unless told otherwise.
    """

    score: ClassVar[str]
    shown: ClassVar[Mapping[str, str]]
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

    @abstractmethod
    def make_card(self, classes: list[str]) -> Card:
        """Describes the model, for its checkpoints and for `checkpoint.build_model`."""

    def load_weights(self, model: nn.Module, path: str | Path) -> LoadReport:
        """Loads the file that a run starts from.

        Raises:
            WeightsError: an unreadable file, or weights that do not fit.
        """
        ema = self.recipe.model.weights_ema
        return load_weights(model, path, reset_classifier=True, ema=ema)

    @abstractmethod
    def check_model(self, model: nn.Module, classes: int) -> None:
        """Raises a UsageError if the model cannot be trained on the recipe's images."""

    def check_batch_norm(self, model: nn.Module, batch: int) -> None:
        """Raises a UsageError if so many images on one device are too few for batch norm."""

    @abstractmethod
    def make_module(self, model: nn.Module, card: Card, updates: int) -> L.LightningModule:
        """Makes what trains the model; an epoch has so many updates of the optimizer."""

    @abstractmethod
    def pictures(self, history: list[Row], results: Mapping[str, Any]) -> dict[str, Picture]:
        """Returns the pictures that end a run, not yet drawn, by what they show."""

    @staticmethod
    @abstractmethod
    def evaluate(
        path: Path, root: str | None, workers: int, batch_size: int, trusted: bool = False
    ) -> dict[str, Any]:
        """Measures a checkpoint of this task.

        Args:
            path: A checkpoint with its card.
            root: A data set; None takes the run's own test part, or where it has none its
                validation part.
            workers: Processes that load images.
            batch_size: Images at a time.
            trusted: Let the checkpoint's recipe decide which images are read; see `own_data`.

        Returns:
            Plain values: "checkpoint", "data", "images", "metrics" by name, "classes", "notes"
            (lines about what of the data was left out, renamed or changed) and more.

        Raises:
            UserError: an unreadable checkpoint, or data that does not fit it.
        """

    @staticmethod
    @abstractmethod
    def describe_metrics(results: Mapping[str, Any]) -> str:
        """Returns what `evaluate` measured as lines for people."""
