"""Images to labels, with a checkpoint that says how."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.data import create_transform

from spanets.checkpoint import restore_model
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
        self.transform = create_transform(**self.card.preprocessing)

    @torch.inference_mode()
    def __call__(self, images: Iterable[str | Path], top: int = 5) -> Iterator[Prediction]:
        """Yields a prediction for each image, in order; an unreadable one has its error.

        One at a time, so that memory does not grow with the number of images.
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


def expand_images(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Yields files as they are, and the images directly in a folder, sorted.

    Raises:
        UserError: a folder without images.
    """
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise UserError(f"{path}: a folder without images")
        yield from found
