"""Exactness against the authors' released implementation."""

import re
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from golden import (
    MODULE_SHAPES,
    REFERENCE,
    STATE_SHAPES,
    TOLERANCE,
    fill,
    images,
    noise,
    read,
    relative_error,
    released_state,
)

import spanets
from spanets.mixers import SPAM, SpectralFilter
from spanets.spectral import low_frequency_mask, spectral_pool
from spanets.weights import convert_official

MERGED = "spanetv2_s18_pure@merged_224x224"


def listed(pattern: str) -> list[Any]:
    """Reference files by name; those of the larger networks take long."""
    names = sorted(path.stem for path in REFERENCE.glob(pattern) if path.stem != MERGED)
    large = ("spanet_medium", "spanet_base", "spanetv2_s36")
    return [pytest.param(n, marks=[pytest.mark.slow] * n.startswith(large)) for n in names]


MODULES, _ = read("modules")
QUICK = ("spanet_small", "spanetv2_s18_pure", "spanetv2_s18_hybrid")


def errors(model: torch.nn.Module, name: str) -> dict[str, float]:
    """How far the model is from each entry of a reference file."""
    expected, metadata = read(name)
    with torch.inference_mode():
        features, stages = model.eval().forward_intermediates(images(metadata))
        ours = {"logits": model.forward_head(features)}
    for i, stage in enumerate(stages):
        ours[f"stage{i}"] = stage[:, :: stage.shape[1] // 8]
        ours[f"stage{i}_mean_abs"] = stage.abs().mean().reshape(1)
    assert ours.keys() == expected.keys()
    return {key: relative_error(ours[key], expected[key]) for key in expected}


def make(
    variant: str, state: dict[str, torch.Tensor], strict: bool = True, **arguments: object
) -> torch.nn.Module:
    """The model around these tensors; no time is spent on initial values."""
    model = timm.create_model(variant.lower(), device="meta", **arguments)
    own = model.state_dict()
    fitting = {key: t for key, t in state.items() if strict or t.shape == own[key].shape}
    model.load_state_dict(fitting, strict=strict, assign=True)
    return model


@pytest.mark.parametrize("method", ["basis", pytest.param("fft", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", listed("spanet_*.safetensors"))
def test_spanet(name, method):
    variant = read(name)[1]["variant"]
    state = spanets.convert_official(released_state(variant))
    found = errors(make(variant, state, spectral_method=method), name)
    assert max(found.values()) < TOLERANCE, found


def test_tolerance_tells_another_ring():
    """The nearest wrong function, the paper's own equation, is a thousand times further off."""
    state = spanets.convert_official(released_state("spanet_small"))
    found = errors(make("spanet_small", state, ring="none"), "spanet_small_224x224")
    assert found["logits"] > 1000 * TOLERANCE
    assert min(found.values()) > 10 * TOLERANCE


@pytest.mark.parametrize("method", [pytest.param("fft", marks=pytest.mark.slow), "matmul"])
@pytest.mark.parametrize("name", listed("spanetv2_*.safetensors"))
def test_spanetv2(name, method):
    variant = read(name)[1]["variant"]
    state = spanets.convert_official(released_state(variant))
    found = errors(make(variant, state, spectral_method=method), name)
    assert max(found.values()) < TOLERANCE, found


def test_tolerance_tells_another_way_to_resize_filters():
    """Bicubic without aligned corners, the framework's default, is off at the second size."""
    state = spanets.convert_official(released_state("spanetv2_s18_pure"))
    model = make("spanetv2_s18_pure", state, img_size=256, strict=False)
    for name, module in model.named_modules():
        if isinstance(module, SpectralFilter):
            logits = state[f"{name}.logits"][None]
            resized = F.interpolate(logits, module.logits.shape[1:], mode="bicubic")[0]
            module.logits = torch.nn.Parameter(resized, requires_grad=False)
    found = errors(model, "spanetv2_s18_pure_256x256")
    assert min(found[key] for key in found if "mean" not in key) > 100 * TOLERANCE


def test_later_layout_of_spanetv2():
    """The reference of the later layout holds filters that nobody wrote down.

    Its tensors called "filter" were left at their random start, N(0, 0.02²), where the rule of the
    others would have filled them. With logits of zero the network must come as close as such
    filters let it, and no other order of the heads may.
    """
    released = released_state("spanetv2_s18_pure@merged")
    for key, value in released.items():
        if key.endswith(".filter"):
            released[key] = torch.zeros_like(value)
    state = spanets.convert_official(released)
    found = errors(make("spanetv2_s18_pure", state, merge="concatenated", scaled_gate=True), MERGED)
    assert found["stage0"] < 0.01
    assert found["logits"] < 0.02
    assert max(found.values()) < 0.04
    for key in state:
        if key.endswith(".interleaved"):
            state[key] = torch.tensor(True)
    found = errors(make("spanetv2_s18_pure", state, scaled_gate=True), MERGED)
    assert found["stage0"] > 0.1
    assert found["logits"] > 0.1


def test_every_network_is_there():
    assert len(listed("spanet_*.safetensors")) == 5
    assert len(listed("spanetv2_*.safetensors")) == 4
    assert (REFERENCE / f"{MERGED}.safetensors").exists()


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK))
        for name in STATE_SHAPES
        if "@" not in name
    ],
)
def test_every_released_variant_converts(variant):
    """All thirteen: every key has its place, every shape fits, nothing is left over."""
    state = spanets.convert_official(released_state(variant))
    make(variant, state)


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
