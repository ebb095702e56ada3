"""Images to labels, with a checkpoint that says how."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from spanets.checkpoint import restore_model
from spanets.data.classification import evaluation_transform
from spanets.data.images import IMAGE_SUFFIXES, ImageError, load_image
from spanets.errors import UserError


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image, the likeliest first, or why there are none.

    Attributes:
        image: Path.
        labels: Class names with their probabilities.
        error: What is wrong with the image, or None.
    """

    image: str
    labels: list[tuple[str, float]]
    error: str | None = None


class Predictor:
    """A checkpoint's model with its preprocessing and class names.

    Args:
        checkpoint: Written by `spanets train`.
        device: None takes a GPU if there is one.

    Raises:
        WeightsError: an unreadable checkpoint.
    """

    def __init__(self, checkpoint: str | Path, device: str | None = None) -> None:
        model, self.card = restore_model(checkpoint)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device)
        self.transform = evaluation_transform(self.card.preprocessing)

    @torch.inference_mode()
    def __call__(self, images: Iterable[str | Path], top: int = 5) -> Iterator[Prediction]:
        """Yields a prediction for each image, in order; an unreadable one has its error.

        One at a time, so that memory does not grow with the number of images.

        Args:
            images: Paths.
            top: Classes for each image; all of them where there are fewer.
        """
        for path in images:
            try:
                image = load_image(path)
            except ImageError as error:
                yield Prediction(str(path), [], str(error))
                continue
            batch = self.transform(image).unsqueeze(0).to(self.device)
            probabilities = self.model(batch)[0].float().softmax(0)
            values, indices = probabilities.topk(min(top, len(self.card.classes)))
            labels = [self.card.classes[i] for i in indices.tolist()]
            yield Prediction(str(path), list(zip(labels, values.tolist(), strict=True)))


def expand_images(paths: Iterable[str | Path]) -> list[Path]:
    """Returns files as they are, and of a folder the images directly in it, sorted.

    Raises:
        UserError: a folder without images, or one that cannot be read.
    """
    expanded: list[Path] = []
    for path in map(Path, paths):
        found = _images_in(path) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path}: a folder without images")
        expanded += found
    return expanded


def _images_in(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    return [
        path
        for path in entries
        if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "." and path.is_file()
    ]
