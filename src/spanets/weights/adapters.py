"""Adapters (LoRA, DoRA, LoHa, IA3) in a checkpoint: adds them to the weights of their layers.

The `peft` package trains adapters, and the tensors have its names. Reading them needs no `peft`:
`W + (α / r) B A` for LoRA (Hu et al., 2022), the same with each row scaled to a learnt length for
DoRA (Liu et al., 2024), `W + (α / r) (A₁ B₁) ⊙ (A₂ B₂)` for LoHa (Hyeon-Woo et al., 2022), and
rows of W multiplied by a learnt factor for IA3 (Liu et al., 2022).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from spanets.weights.errors import WeightsError, show_name
from spanets.weights.files import StateDict

BASE_KEY = "adapter_base"
"""Entry of a checkpoint that holds an adapter alone: which weights it belongs to."""

_OF_RECIPE = ("spanets", "recipe", "model", "lora", "alpha")
"""Where a checkpoint holds α."""

_BASE = ".base_layer."
_PART = re.compile(
    r"(?P<layer>.+)\.(?:base_layer\.(?P<base>weight|bias)"
    r"|(?P<lora>lora_A|lora_B|lora_magnitude_vector)\.default\.weight"
    r"|(?P<plain>hada_w[12]_[ab]|ia3_l)\.default)"
)


def layer_of(name: str) -> str | None:
    """Returns the layer of a tensor of an adapter, or None for another tensor."""
    found = _PART.fullmatch(name)
    return None if found is None or found["base"] else found["layer"]


def base_name(name: str) -> str:
    """Returns a tensor's name in the network without adapters."""
    return name.replace(_BASE, ".")


def adapted_names(names: Iterable[str], adapters: Iterable[str]) -> dict[str, str]:
    """Returns the plain names of tensors, each with its name beside these tensors of adapters."""
    layers = {layer_of(name) for name in adapters} - {None}
    found = {}
    for name in names:
        layer, _, kind = name.rpartition(".")
        found[name] = f"{layer}{_BASE}{kind}" if layer in layers else name
    return found


def merge_content(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a checkpoint's content with its adapters merged; any other content unchanged.

    Raises:
        WeightsError: damaged adapters, or adapters without the weights that they belong to.
    """
    if BASE_KEY in content:
        raise WeightsError(
            "holds an adapter without the weights that it adapts; give the checkpoint of the run"
        )
    merged = dict(content)
    for key, value in content.items():
        if isinstance(value, Mapping) and any(_BASE in str(name) for name in value):
            merged[key] = merge_adapters(value, _alpha_of(content))
    return merged


def merge_adapters(tensors: Mapping[str, Any], alpha: float | None) -> StateDict:
    """Returns weights with their adapters merged, under the names of the network without them.

    Args:
        tensors: Tensors by name; those without an adapter are returned as they are.
        alpha: α of the adapters; None is their rank r, so that α / r is 1.

    Raises:
        WeightsError: an adapter is incomplete, or does not fit its layer.
    """
    plain: StateDict = {}
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        found = _PART.fullmatch(name)
        if found is None:
            plain[name] = value
        else:
            part = found["base"] or found["lora"] or found["plain"]
            layers.setdefault(found["layer"], {})[part] = value
    for layer, parts in layers.items():
        try:
            merged = _merge(parts, alpha)
        except (KeyError, RuntimeError, IndexError, AttributeError, ZeroDivisionError):
            raise WeightsError(
                f"the adapter of {show_name(layer)} is damaged: {', '.join(sorted(parts))}"
            ) from None
        plain |= {f"{layer}.{name}": value for name, value in merged.items()}
    return plain


def _merge(parts: Mapping[str, Tensor], alpha: float | None) -> dict[str, Tensor]:
    """Returns weight and bias of a layer, of its parts by peft's names."""
    base = {name: parts[name] for name in ("weight", "bias") if name in parts}
    weight = base["weight"].float()
    rows = weight.flatten(1)  # (out, in): every adapted layer is linear or a 1x1 convolution
    if "ia3_l" in parts:
        factors = parts["ia3_l"].flatten()
        return {name: _scale_rows(value, factors) for name, value in base.items()}
    if "lora_B" in parts:
        down, up = parts["lora_A"].flatten(1).float(), parts["lora_B"].flatten(1).float()
        rows = rows + _scale(alpha, len(down)) * (up @ down)
    else:
        first, second = (parts[f"hada_{w}_a"] @ parts[f"hada_{w}_b"] for w in ("w1", "w2"))
        rows = rows + _scale(alpha, len(parts["hada_w1_b"])) * (first * second).float()
    if "lora_magnitude_vector" in parts:
        lengths = parts["lora_magnitude_vector"].flatten().float()
        rows = _scale_rows(rows, lengths / rows.norm(dim=1))
    return {**base, "weight": rows.reshape(weight.shape).to(base["weight"].dtype)}


def _scale(alpha: float | None, rank: int) -> float:
    return 1.0 if alpha is None else alpha / rank


def _scale_rows(value: Tensor, factors: Tensor) -> Tensor:
    return (value * factors.reshape(-1, *[1] * (value.ndim - 1))).to(value.dtype)


def _alpha_of(content: Mapping[str, Any]) -> float | None:
    value: Any = content
    for key in _OF_RECIPE:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None or (isinstance(value, int | float) and abs(value) < 1e6):
        return value
    raise WeightsError(f"model.lora.alpha is damaged ({show_name(repr(value))})")
