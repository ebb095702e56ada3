"""The rule by which the weights and images of `tests/reference/` are made."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from spanets.spectral import low_frequency_mask

REFERENCE = Path(__file__).parent / "reference"
STATE_SHAPES = json.loads((REFERENCE / "state_dict_shapes.json").read_text())
MODULE_SHAPES = json.loads((REFERENCE / "module_shapes.json").read_text())

# Relative to the largest value. The released code's own float32 noise is 3e-7 to 2e-6; the nearest
# wrong function, another ring value, is off by 2.6e-2.
TOLERANCE = 2e-5


def fill(name: str, shape: list[int]) -> Tensor:
    """The weights under one released name."""
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    noise = noise.astype(np.float32)
    leaf = name.split(".")[-1]
    if leaf.startswith("filter"):
        value = noise
    elif len(shape) >= 2:
        value = noise / math.sqrt(math.prod(shape[1:]))
    elif leaf in ("weight", "scale", "alpha"):
        value = 1 + 0.1 * noise
    else:
        value = 0.1 * noise
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def released_state(variant: str) -> dict[str, Tensor]:
    """A released state dict: SPANet's masks are constants, the rest follows the rule."""
    state = {}
    for name, shape in STATE_SHAPES[variant].items():
        if name.endswith(".filter") and variant.startswith("spanet_"):
            _, position, _, _, _, gate, _ = name.split(".")
            radius = (2, 2, 1, 1)[int(position) // 2]
            mask = low_frequency_mask(*shape[1:], radius, (0.7, 0.8, 0.9)[int(gate)])
            state[name] = mask[None]
        else:
            state[name] = fill(name, shape)
    return state


def read(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a reference file."""
    with safe_open(REFERENCE / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


def images(metadata: dict[str, str]) -> Tensor:
    """The images of a reference file."""
    shape = (int(metadata["batch"]), 3, int(metadata["height"]), int(metadata["width"]))
    return noise(int(metadata["image_seed"]), shape)


def noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers."""
    values = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(values)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over largest value."""
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
