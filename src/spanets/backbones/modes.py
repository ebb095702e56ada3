"""Runs networks in evaluation mode for a moment."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Returns a context in which a model evaluates; at its end each module has its own mode again.

    `model.train(mode)` would not do: frozen parts of a network that trains are in evaluation mode.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
