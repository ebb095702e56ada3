"""Classifiers to be measured: checkpoints, and exported files in their place."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spanets.checkpoint import Card, restore_model
from spanets_runtime.errors import UsageError
from spanets_runtime.onnx import OnnxFile, OnnxPredictor, is_exported


class ExportedClassifier(nn.Module):
    """The graph of an ONNX file as a module: images (B, 3, H, W) to logits (B, classes).

    It runs on the CPU by onnxruntime, one image at a time where the file takes no more.

    Args:
        file: Takes images and gives logits.
    """

    def __init__(self, file: OnnxFile) -> None:
        super().__init__()
        self.file = file
        self.batch = file.shape[0]

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits.

        Raises:
            UserError: the graph cannot be computed.
        """
        size = self.batch if isinstance(self.batch, int) else len(images)
        logits = [self.file.run(part.cpu().numpy())[0] for part in images.split(size)]
        return torch.from_numpy(np.concatenate(logits)).to(images.device)


def open_classifier(path: Path) -> tuple[nn.Module, Card]:
    """Opens a checkpoint, or a file that `spanets export` wrote, which has no recipe on its card.

    Raises:
        UsageError: an exported file of another task.
        UserError: an unreadable file, or one without classes.
    """
    if not is_exported(path):
        return restore_model(path)
    file = OnnxFile(path)
    if file.task not in (None, "classification"):
        raise UsageError(
            f"{path} is for {file.task}; of exported files eval takes classifiers, else give the "
            "checkpoint"
        )
    classes = OnnxPredictor(file).classes
    model, version = (str(file.told.get(key, "")) for key in ("model", "version"))
    return ExportedClassifier(file), Card(model, {}, classes, file.preprocessing, {}, version)
