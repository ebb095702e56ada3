"""The base of tasks on whole images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from spanets.backbones.factory import create_model
from spanets.checkpoint import ModelInfo
from spanets.training.features import build_features
from spanets.training.task import Task
from spanets.weights import LoadReport, load_weights
from spanets.weights.choosing import Given
from spanets.weights.classifiers import classifier_names
from spanets_runtime.arrays import PIXEL_KEYS
from spanets_runtime.errors import UsageError, first_line

if TYPE_CHECKING:
    from spanets.data.folds import Folds
    from spanets.sources import Source

R = TypeVar("R", bound=Any)


class ImageLevelTask(Task[R]):
    """A task whose network is a timm model: from images (B, C, S, S) to a row of outputs each."""

    is_image_level = True
    preprocessing_keys = frozenset({"crop_pct", "interpolation", "mean", "std", *PIXEL_KEYS})
    side_key = "image_size"

    def make_info(self, classes: list[str]) -> ModelInfo:
        """Returns the model's metadata; its network takes the channels of the recipe.

        Raises:
            UsageError: `model.args` names another number of channels or classes.
        """
        from spanets.data.image_level.transforms import preprocessing_of

        info = self.describe_model(classes, preprocessing_of(self.recipe.data))
        outputs = info.model_args.get("num_classes")
        if outputs not in (None, len(classes)):
            raise UsageError(
                f"model.args.num_classes is {outputs}, and the data set has {len(classes)}; leave "
                "out the first, which follows the second"
            )
        channels, given = self.recipe.data.channels, info.model_args.get("in_chans")
        if channels is None:
            return info
        if given not in (None, channels):
            raise UsageError(
                f"model.args.in_chans is {given}, and data.channels is {channels}; leave out the "
                "first, which follows the second"
            )
        return replace(info, model_args={**info.model_args, "in_chans": channels})

    @classmethod
    def build_model(cls, info: ModelInfo) -> nn.Module:
        """Builds a model with one output for each class."""
        if info.model_args.get("features_only"):
            raise UsageError("model argument 'features_only' is not for classifiers")
        return create_model(info.model, info.model_args, num_classes=len(info.classes))

    @classmethod
    def exportable(cls, source: Source, features_only: bool) -> nn.Module:
        """Returns the model, or its backbone."""
        return build_features(source) if features_only else source.network

    def load_weights(self, model: nn.Module, path: Given) -> LoadReport:
        """Loads initial weights; a new classifier starts at zero.

        Weights for three channels are adapted to the recipe's, as timm does.

        timm's models initialise it in many ways, and in some the first loss is several times that
        of a guess, which disturbs the pretrained layers (zero: Kolesnikov et al., 2020, BiT).
        """
        ema, adapt = self.recipe.model.weights_ema, self.recipe.data.channels is not None
        report = load_weights(model, path, reset_classifier=True, ema=ema, adapt_channels=adapt)
        with torch.no_grad():
            for key in report.fresh:
                if key.rpartition(".")[0] in classifier_names(model):
                    model.get_parameter(key).zero_()
        return report

    def draw_folds(self) -> Folds:
        """Returns the fold of each image of the recipe's table."""
        from spanets.data.image_level.tables import draw_folds

        return draw_folds(self.recipe.data)

    def check_model(self, model: nn.Module, classes: int) -> None:
        """Raises a UsageError if the model does not return logits for the recipe's image size."""
        name, size = self.recipe.model.name, self.recipe.data.image_size
        try:
            with torch.no_grad():
                shape = tuple(model.eval()(self._blank_image()).shape)
        # Models check sizes in different ways, and raise any kind of error.
        except Exception as error:
            raise UsageError(
                f"model {name} cannot take images of {size}x{size} pixels ({first_line(error)}); "
                "set data.image_size or model.args"
            ) from error
        if shape != (1, classes):
            raise UsageError(f"model {name} returns {shape}, not logits (1, {classes})")
        model.train()

    def check_batch_norm(self, model: nn.Module, batch: int) -> None:
        """Raises a UsageError if a batch of this size is too small for batch norm."""
        from spanets.training.batch_norm import refuse_single_values

        refuse_single_values(model, self._blank_image(), batch)

    def _blank_image(self) -> Tensor:
        """Returns a batch of one black image of the recipe's size, (1, C, S, S)."""
        data = self.recipe.data
        return torch.zeros(1, data.channels or 3, data.image_size, data.image_size)
