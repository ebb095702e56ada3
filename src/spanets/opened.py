"""A checkpoint that is ready to predict."""

from pathlib import Path

import torch

from spanets.checkpoint import restore_model


class OpenedCheckpoint:
    """A checkpoint's model on a device, and its card.

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
