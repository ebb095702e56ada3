"""What `torch.jit.script` gets in the place of a network: a trace of it.

The spectral filters depend on size, type and device of a map in ways that TorchScript cannot
compile. A trace holds the operators that they come to, for images of any size.
"""

import warnings

import torch
from torch import Tensor, nn


class _Trace(nn.Module):
    """Holds the trace of a network.

    Args:
        network: The network, evaluating.
        in_chans: Image channels.

    Raises:
        ValueError: the network is in training mode; its trace would stay in it.
    """

    def __init__(self, network: nn.Module, in_chans: int) -> None:
        super().__init__()
        if network.training:
            raise ValueError(
                "torch.jit.script records this network as it evaluates: call eval() first"
            )
        like = next(network.parameters())
        images = torch.zeros(2, in_chans, 64, 64, device=like.device, dtype=like.dtype)
        with warnings.catch_warnings():
            # Of sizes that become constants: the checks of an image's size.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            warnings.simplefilter("ignore", FutureWarning)  # torch names its successors
            self.trace = torch.jit.trace(network, images, check_trace=False)


class Recorded(_Trace):
    """A trace of a network from images to logits; for arguments and errors see `_Trace`."""

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, in_chans, H, W) to logits."""
        return self.trace(images)


class RecordedMaps(_Trace):
    """A trace of a network from images to maps; for arguments and errors see `_Trace`."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps images (B, in_chans, H, W) to a list of maps."""
        return self.trace(images)
