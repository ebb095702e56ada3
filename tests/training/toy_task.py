"""A task in one file: the mean brightness of an image, learnt by any timm model.

Importing this file registers the task, and `spanets train` takes recipes with `task: brightness`.
An installed package registers its task by an entry point of the group `spanets.tasks`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchmetrics import R2Score
from torchvision.transforms import v2

from spanets.backbones.factory import create_model
from spanets.checkpoint import ModelInfo
from spanets.data.loaders import Loaders, ordered_loader, shuffled_loader
from spanets.recipe import Data, Recipe
from spanets.sources import ReadyModel, Source
from spanets.tasks import register_task
from spanets.training.module import RecipeModule
from spanets.training.options import EvalOptions, PredictOptions
from spanets.training.own_data import own_recipe
from spanets.training.task import Task
from spanets_runtime.errors import UsageError
from spanets_runtime.images import load_image
from spanets_runtime.listing import ImageSource, images_below
from spanets_runtime.predict import ImagePrediction, predict_each


@dataclass
class BrightnessData(Data):
    """A folder of images, and the side that they are resized to."""

    side: int = 64


@dataclass
class BrightnessRecipe(Recipe):
    """The keys of every task, and those above."""

    task: Literal["brightness"] = "brightness"
    data: BrightnessData = field(default_factory=BrightnessData)


def make_transform(side: int) -> v2.Compose:
    """Returns what makes the network's input (3, side, side) of an image."""
    return v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, True), v2.Resize((side, side))])


def list_parts(root: str | None) -> tuple[list[Path], list[Path]]:
    """Returns the images for training, and every fourth for validation."""
    if root is None:
        raise UsageError("data.root is not set; name a folder of images: --data.root DIR")
    paths = images_below(root).images
    return [path for i, path in enumerate(paths) if i % 4], paths[::4]


@dataclass
class BrightImages(Dataset[tuple[Tensor, Tensor]]):
    """Images (3, S, S) with their brightness (1,), from 0 to 1."""

    paths: list[Path]
    transform: v2.Compose

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        _, index = key  # the epoch comes first: it would seed random augmentation
        pixels = self.transform(load_image(self.paths[index]))
        return pixels, pixels.mean().reshape(1)


class BrightnessModule(RecipeModule[BrightnessRecipe]):
    """Trains by the squared error, and validates by the share of the variance explained."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.r2 = R2Score()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, truth = batch
        return self.log_loss(F.mse_loss(self.model(self.lay_out(images)), truth), batch_idx)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, truth = batch
        self.r2.update(self.model(self.lay_out(images)).float().flatten(), truth.flatten())
        self.log("val/r2", self.r2)


@dataclass(frozen=True)
class BrightnessPrediction(ImagePrediction):
    brightness: float | None = None


class BrightnessPredictor(ReadyModel):
    def __call__(self, images: Iterable[ImageSource]) -> Iterator[BrightnessPrediction]:
        return predict_each(images, self._predict, BrightnessPrediction)

    @torch.inference_mode()
    def _predict(self, image: ImageSource) -> BrightnessPrediction:
        pixels = self.preprocess(load_image(image))[None].to(self.device)
        return BrightnessPrediction(str(image), brightness=self.model(pixels).item())


@register_task
class BrightnessTask(Task[BrightnessRecipe]):
    name = "brightness"
    recipe_type = BrightnessRecipe
    side_key = "side"
    score = "val/r2"

    def make_loaders(self, batch_size: int, processes: int, run_data: object) -> Loaders:
        data, seed = self.recipe.data, self.recipe.seed
        train, val = (BrightImages(p, make_transform(data.side)) for p in list_parts(data.root))
        shuffled = shuffled_loader(train, batch_size, data.workers, processes, seed)
        ordered = ordered_loader(val, batch_size, data.workers, processes)
        return Loaders(shuffled, ordered, classes=["brightness"])  # the names of the outputs

    @classmethod
    def build_model(cls, info: ModelInfo) -> nn.Module:
        return create_model(info.model, info.model_args, num_classes=len(info.classes))

    def make_module(self, model: nn.Module, info: ModelInfo, updates: int) -> BrightnessModule:
        return BrightnessModule(model, info, self.recipe, updates)

    @classmethod
    def make_preprocess(cls, info: ModelInfo, origin: str) -> v2.Compose:
        return make_transform(info.preprocessing["input_size"][-1])

    @classmethod
    def make_predictor(cls, source: Source, options: PredictOptions) -> BrightnessPredictor:
        return BrightnessPredictor(source)

    @classmethod
    @torch.inference_mode()
    def evaluate(cls, source: Source, options: EvalOptions) -> dict[str, Any]:
        root = options.root or own_recipe(source, BrightnessRecipe, options.trusted).data.root
        images = BrightImages(list_parts(root)[1], source.preprocess)
        loader = ordered_loader(images, options.batch_size or cls.eval_batch, options.workers)
        errors = torch.cat([(source.network(given) - truth).abs() for given, truth in loader])
        metrics = {"mean_error": errors.mean().item()}
        return {"checkpoint": source.word, "data": root, "images": len(errors), "metrics": metrics}
