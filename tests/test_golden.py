"""Exactness against the authors' released implementation."""

import re

import pytest
import timm
import torch
from golden import (
    MODULE_SHAPES,
    REFERENCE,
    TOLERANCE,
    fill,
    images,
    noise,
    read,
    relative_error,
    spanet_state,
)

import spanets
from spanets.mixers import SPAM
from spanets.spectral import low_frequency_mask, spectral_pool
from spanets.weights import convert_official

NETWORKS = sorted(path.stem for path in REFERENCE.glob("spanet_*.safetensors"))
MODULES, _ = read("modules")


def check_network(model: torch.nn.Module, name: str) -> None:
    expected, metadata = read(name)
    with torch.inference_mode():
        features, stages = model.eval().forward_intermediates(images(metadata))
        logits = model.forward_head(features)
    assert relative_error(logits, expected["logits"]) < TOLERANCE
    for i, stage in enumerate(stages):
        every = stage.shape[1] // 8
        assert relative_error(stage[:, ::every], expected[f"stage{i}"]) < TOLERANCE
        mean = stage.abs().mean().reshape(1)
        assert relative_error(mean, expected[f"stage{i}_mean_abs"]) < TOLERANCE


@pytest.mark.parametrize("method", ["basis", "fft"])
@pytest.mark.parametrize("name", NETWORKS)
def test_spanet(name, method):
    variant = read(name)[1]["variant"]
    model = timm.create_model(variant.lower(), spectral_method=method)
    model.load_state_dict(spanets.convert_official(spanet_state(variant)))
    check_network(model, name)


def test_every_network_is_there():
    assert len(NETWORKS) == 5


def filter_entries() -> list[tuple[int, int, int, float]]:
    found = [re.fullmatch(r"spf_(\d+)x(\d+)_r(\d+)_l(\d+)\.mask", key) for key in MODULES]
    return [(int(m[1]), int(m[2]), int(m[3]), int(m[4]) / 100) for m in found if m]


@pytest.mark.parametrize(("height", "width", "radius", "balance"), filter_entries())
def test_spectral_pooling_filter(height, width, radius, balance):
    key = f"spf_{height}x{width}_r{radius}_l{round(100 * balance)}"
    mask = low_frequency_mask(height, width, radius, balance)
    assert relative_error(mask[None], MODULES[f"{key}.mask"]) < 1e-6  # constants
    x = noise(100 * height + radius, (2, 5, height, width))
    for method in ("basis", "fft"):
        out = spectral_pool(x, radius, balance, method=method)
        assert relative_error(out, MODULES[f"{key}.out"]) < TOLERANCE


def test_spam():
    shapes = MODULE_SHAPES["spam_48_14_r2"]
    state = {
        name: low_frequency_mask(14, 14, 2, (0.7, 0.8, 0.9)[int(name.split(".")[1])])[None]
        if name.endswith(".filter")
        else fill(name, shape)
        for name, shape in shapes.items()
    }
    # A mixer alone has no network around it: give its names the prefix that they have there.
    prefix = "network.0.0.token_mixer."
    named = {prefix + name: value for name, value in state.items()}
    stem = {"patch_embed.proj.bias": torch.zeros(1)}
    converted = convert_official(named | stem)
    ours = "stages.0.blocks.0.token_mixer."
    mixer = SPAM(48, radius=2)
    mixer.load_state_dict(
        {name.removeprefix(ours): t for name, t in converted.items() if name.startswith(ours)}
    )
    with torch.inference_mode():
        out = mixer(noise(5, (2, 48, 14, 14)))
    assert relative_error(out, MODULES["spam_48_14_r2.out"]) < TOLERANCE
