"""SPANet-small against its FFT forms and its peers: eager float32, 224², CPU.

    python benchmarks/cpu_speed.py [--threads 2] [--batch 16] [--rounds 15]

Forms of the same network, equal to float rounding:
  closed form     the default: thin matrix products
  rfft            `spectral_method="fft"`: two real FFTs over all channels
  released fft    as the released code computes it: complex FFT, shift, mask and inverse for each
                  gate, and a convolution for each, on contiguous (NCHW) maps
Peers are timed in their better layout of the two, contiguous and channels last.
"""

import argparse
from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from common import interleave, summarise, write
from torch import Tensor, nn

import spanets  # noqa: F401 (registers the models)
from spanets.backbones import pyramid
from spanets.mixers import SPAM, SpectralContext
from spanets.spectral import low_frequency_mask


class ReleasedContext(nn.Module):
    """The context by complex FFTs, gate by gate; the masks are buffers, as released."""

    def __init__(self, context: SpectralContext, size: int) -> None:
        super().__init__()
        self.context = context
        masks = [low_frequency_mask(size, size, context.radius, b) for b in context.balances]
        self.register_buffer("masks", torch.stack(masks)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        sizes = self.context.gate_sizes
        parts = zip(x.split(sizes, 1), self.context.weight.split(sizes, 1), strict=True)
        total: Tensor | float = 0.0
        for i, (part, weight) in enumerate(parts):
            spectrum = torch.fft.fftshift(torch.fft.fft2(part, dim=(-2, -1)), dim=(-2, -1))
            spectrum = torch.fft.ifftshift(spectrum * self.masks[i], dim=(-2, -1))
            pooled = torch.fft.ifft2(spectrum, dim=(-2, -1)).real
            total = total + F.conv2d(pooled, weight[:, :, None, None], self.context.bias[i])
        return total


def released_form(name: str, size: int = 224) -> nn.Module:
    """Builds the network as the released code computes it, weights as the default's."""
    model = timm.create_model(name)
    for i, stage in enumerate(model.stages):
        for module in stage.modules():
            if isinstance(module, SPAM):
                module.context = ReleasedContext(module.context, size // (4 * 2**i))
    return model


def inference(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """Returns a forward pass to be timed."""
    model.eval()

    def run() -> None:
        with torch.inference_mode():
            model(x)

    return run


def training(model: nn.Module, x: Tensor) -> Callable[[], object]:
    """Returns a training step to be timed: forward, backward, SGD."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return run


def contiguous(task: Callable[[], object]) -> Callable[[], object]:
    """Runs a task with the CPU's channels-last rule of the stem switched off."""

    def run() -> None:
        layout = pyramid.CPU_LAYOUT
        pyramid.CPU_LAYOUT = torch.contiguous_format
        try:
            task()
        finally:
            pyramid.CPU_LAYOUT = layout

    return run


def main() -> None:
    """Measures and writes results/cpu_speed.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    x = torch.randn(arguments.batch, 3, 224, 224)
    last = x.contiguous(memory_format=torch.channels_last)

    results = {}
    for mode, timed in (("inference", inference), ("training", training)):
        tasks = {
            "closed_form": timed(timm.create_model("spanet_small"), x),
            "rfft": timed(timm.create_model("spanet_small", spectral_method="fft"), x),
            "released_fft": contiguous(timed(released_form("spanet_small"), x)),
        }
        for peer in ("focalnet_tiny_srf", "convnext_tiny"):
            model = timm.create_model(peer)
            tasks[peer] = timed(model, x)
            model = timm.create_model(peer).to(memory_format=torch.channels_last)
            tasks[f"{peer} channels_last"] = timed(model, last)
        rounds = arguments.rounds if mode == "inference" else max(3, arguments.rounds // 3)
        results[mode] = summarise(interleave(tasks, rounds), "closed_form")
    write("cpu_speed", {"batch": arguments.batch, "size": 224, **results})


if __name__ == "__main__":
    main()
