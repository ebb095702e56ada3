"""Images to masks, with a segmenter's checkpoint that says how."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from spanets.pictures import free_name, save_picture
from spanets.predict.opened import OpenedCheckpoint
from spanets.segmentation import infer
from spanets.segmentation.labels import label_map, mask_image, overlay
from spanets_runtime.fitting import Fitting
from spanets_runtime.images import ImageError, load_image


@dataclass(frozen=True)
class MaskPrediction:
    """What was found in an image, or why nothing was.

    Attributes:
        image: Path.
        mask: PNG file of class numbers, as in the training masks.
        overlay: JPEG file of the image with the classes' colours over it.
        shares: Share of the pixels by class name, the largest first; absent ones are left out.
        error: What is wrong with the image, or None.
    """

    image: str
    mask: str = ""
    overlay: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def __str__(self) -> str:
        """Returns a line for people."""
        shares = "  ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
        return f"{self.image}: {self.mask}  {self.overlay}  {shares}"

    def to_dict(self) -> dict[str, object]:
        """Returns plain values for machines."""
        shares = [{"label": name, "share": share} for name, share in self.shares.items()]
        return {
            "image": self.image,
            "mask": self.mask,
            "overlay": self.overlay,
            "classes": shares,
        }


class MaskPredictor(OpenedCheckpoint):
    """A segmenter's checkpoint with its preprocessing and class names.

    Args:
        checkpoint: Written by `spanets train`.
        device: None takes a GPU if there is one.

    Raises:
        WeightsError: an unreadable checkpoint.
        UserError: damaged preprocessing.
    """

    def __init__(self, checkpoint: str | Path, device: str | None = None) -> None:
        super().__init__(checkpoint, device)
        self.fitting = Fitting.parse(self.card.preprocessing, checkpoint)

    def __call__(self, images: Iterable[str | Path], out: Path) -> Iterator[MaskPrediction]:
        """Writes mask and overlay of each image into a folder, and yields what was found.

        Args:
            images: Paths. An unreadable image has its error, and the others are still predicted.
            out: Of the files NAME.png and NAME-overlay.jpg, numbered where names are alike.

        Raises:
            UserError: the folder cannot be written.
        """
        taken: set[str] = set()
        for path in images:
            try:
                image = load_image(path)
            except ImageError as error:
                yield MaskPrediction(str(path), error=str(error))
                continue
            name = free_name(Path(path).stem, taken)
            yield self._write(image, path, out / f"{name}.png", out / f"{name}-overlay.jpg")

    @torch.inference_mode()
    def label(self, image: Image.Image) -> NDArray[np.uint8]:
        """Returns the class of each pixel of an RGB image, (H, W)."""
        pixels = torch.from_numpy(self.fitting(image))[None].to(self.device)
        logits = infer(self.model, pixels, self.card.preprocessing)
        return label_map(logits, image.height, image.width).cpu().numpy().astype(np.uint8)

    def _write(
        self, image: Image.Image, path: str | Path, mask: Path, picture: Path
    ) -> MaskPrediction:
        labels, classes = self.label(image), self.card.classes
        first = self.card.preprocessing.get("first", 0)
        save_picture(mask_image(labels, len(classes), first), mask)
        save_picture(overlay(image, labels, len(classes)), picture)
        counts = np.bincount(labels.ravel(), minlength=len(classes))
        order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
        shares = {classes[i]: float(counts[i] / labels.size) for i in order}
        return MaskPrediction(str(path), str(mask), str(picture), shares)
