"""Weights from files: the authors' releases under our names, safely read and strictly loaded.

A file goes through `read_state_dict` (tensors by name), `convert_official` (released names to
ours) and a comparison with the model that accounts for every key; `load_weights` is all three.
Nothing here executes what a file holds: safetensors, or `torch.load(weights_only=True)`.
"""

import argparse
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mode
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from spanets.errors import UserError
from spanets.mixers import BALANCES, chunk_sizes
from spanets.spectral import RING, low_frequency_mask

StateDict = dict[str, Tensor]

RELEASES = {
    "spanet": "https://github.com/DoranLyong/SPANet-official",
    "spanetv2": "https://github.com/DoranLyong/SPANetV2-official",
}
"""Where the authors publish code and weights."""

RADII = (2, 2, 1, 1)

# float32 masks that differ by rounding alone; the nearest wrong mask (another ring) is 0.03 off.
MASK_TOLERANCE = 1e-6


class WeightsError(UserError):
    """A file or state dict that does not fit."""


# ---- weights that timm is asked for

_SOURCES = ("url", "file", "hf_hub_id", "state_dict", "source")


def check_pretrained(name: str, pretrained: bool, kwargs: Mapping[str, Any]) -> None:
    """Explains `pretrained=True`, unless the call itself names a source of weights.

    Raises:
        RuntimeError: no source was given.
    """
    configs = [kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay")]
    if not pretrained or any(_names_source(config) for config in configs):
        return
    family = name.split("_")[0]
    raise RuntimeError(
        f"no weights of {name} are hosted for this package. The authors publish theirs at "
        f"{RELEASES[family]}; download the file, then: "
        f'model = timm.create_model("{name}"); spanets.load_weights(model, "FILE")'
    )


def _names_source(config: object) -> bool:
    """Whether timm's configuration (a mapping, its own class, a tag or None) has a source."""
    entries = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
    return any(entries.get(source) for source in _SOURCES)


def adapt_state_dict(state_dict: StateDict, model: nn.Module) -> StateDict:
    """Renames a released state dict for `model`; timm's hook for files given by the user."""
    return convert_official(state_dict, **_spectral_arguments(model))


def _spectral_arguments(model: nn.Module) -> dict[str, Any]:
    """What the masks of released weights must agree with."""
    names = ("radii", "balances", "ring")
    return {name: getattr(model, name) for name in names if hasattr(model, name)}


# ---- released names to ours


def is_official(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of the released code."""
    return any(key.startswith(("patch_embed.", "network.", "downsample_")) for key in state_dict)


def convert_official(
    state_dict: Mapping[str, Tensor],
    radii: Sequence[float] = RADII,
    balances: Sequence[float] = BALANCES,
    ring: float | None = RING,
) -> StateDict:
    """Renames a released SPANet state dict to this package's names.

    The released masks are constants: each is compared with the one that radius, balance and ring
    define, and dropped. A state dict that has our names already is returned as it is.

    Args:
        state_dict: Released classifier or detection backbone, without wrappers or prefixes.
        radii: Radius of each stage's disc, in frequency bins.
        balances: λ of the gates.
        ring: ρ at distance exactly the radius; None is `1 - λ`.

    Returns:
        A new dictionary; tensors that need no change are shared.

    Raises:
        WeightsError: a key that SPANet does not have, a gate that is missing or has another
            shape, or another mask.
    """
    if not is_official(state_dict):
        return dict(state_dict)
    converted: StateDict = {}
    gates: dict[str, StateDict] = {}  # the parts of `pws`, by mixer
    for key, value in state_dict.items():
        if found := re.fullmatch(_MASK, key):
            stage, gate = int(found[1]) // 2, int(found[2])
            if stage >= len(radii) or gate >= len(balances):
                raise WeightsError(f"unexpected key {key}, the model has no such gate")
            _check_mask(key, value, radii[stage], balances[gate], ring)
        elif found := re.fullmatch(_GATE, key):
            gates.setdefault(found[1], {})[found[2]] = value
        else:
            converted[_rename(key)] = value
    for mixer, parts in gates.items():
        context = _rename(f"{mixer}proj_in.weight").removesuffix("proj_in.weight") + "context."
        weight, bias = _merge_gates(f"{mixer}pws.", parts, len(balances))
        converted |= {f"{context}weight": weight, f"{context}bias": bias}
    return converted


_MASK = r"network\.([0246])\.\d+\.token_mixer\.sps\.(\d{1,3})\.filter"
_GATE = r"(network\.[0246]\.\d+\.token_mixer\.)pws\.(.+)"
# In a block, these are called what we call them; the two convolutions are not.
_SAME = ("norm1", "norm2", "mlp.fc1", "mlp.fc2", "token_mixer.proj_in", "token_mixer.proj_out")
_IN_BLOCK = {
    **{name: name for name in (*_SAME, "res_scale1", "res_scale2")},
    "token_mixer.conv.0": "token_mixer.conv_row",
    "token_mixer.conv.1": "token_mixer.conv_column",
}
_OUTSIDE = {"patch_embed.proj": "stem.conv", "norm": "norm", "head": "head.fc"}


def _rename(key: str) -> str:
    """Our name of one released parameter.

    `network.{0,2,4,6}` are the stages, `network.{1,3,5}` the downsamplings before 1, 2 and 3.
    """
    module, _, leaf = key.rpartition(".")
    ours = _OUTSIDE.get(module)
    if found := re.fullmatch(r"network\.([0246])\.(\d+)\.(.+)", module):
        name = _IN_BLOCK.get(found[3])
        ours = name and f"stages.{int(found[1]) // 2}.blocks.{found[2]}.{name}"
    elif found := re.fullmatch(r"network\.([135])\.proj", module):
        ours = f"stages.{(int(found[1]) + 1) // 2}.downsample.conv"
    elif found := re.fullmatch(r"norm([0246])", module):
        ours = f"output_norms.{int(found[1]) // 2}"
    if ours is None:
        raise WeightsError(f"unexpected key {key}, no part of a released SPANet")
    return f"{ours}.{leaf}"


def _merge_gates(prefix: str, parts: StateDict, count: int) -> tuple[Tensor, Tensor]:
    """The gates' 1×1 convolutions as one matrix (C, C), and their biases (N, C)."""
    expected = [f"{i}.{kind}" for i in range(count) for kind in ("weight", "bias")]
    if missing := [part for part in expected if part not in parts]:
        raise WeightsError(f"missing key {prefix}{missing[0]}, one of {count} gates")
    if extra := sorted(parts.keys() - set(expected)):
        raise WeightsError(f"unexpected key {prefix}{extra[0]}, the model has {count} gates")
    dim = mode(value.shape[:1].numel() for value in parts.values())
    try:
        sizes = chunk_sizes(dim, count)
    except ValueError as error:
        raise WeightsError(f"{prefix}0.weight and the others: {error}") from None
    weights = [parts[f"{i}.weight"] for i in range(count)]
    biases = [parts[f"{i}.bias"] for i in range(count)]
    for i, size in enumerate(sizes):
        _check_shape(f"{prefix}{i}.weight", weights[i], (dim, size, 1, 1))
        _check_shape(f"{prefix}{i}.bias", biases[i], (dim,))
    return torch.cat(weights, dim=1).flatten(1), torch.stack(biases)


def _check_shape(key: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise WeightsError(f"{key} has shape {tuple(value.shape)}, must be {shape}")


def _check_mask(key: str, mask: Tensor, radius: float, balance: float, ring: float | None) -> None:
    if mask.ndim != 3 or mask.shape[0] != 1 or mask.numel() == 0 or not mask.is_floating_point():
        raise WeightsError(f"{key} is {mask.dtype} {tuple(mask.shape)}, a mask is float (1, H, W)")
    _, height, width = mask.shape
    expected = low_frequency_mask(height, width, radius, balance, ring)
    error = (mask[0].float() - expected).abs().max().item()
    tolerance = max(MASK_TOLERANCE, torch.finfo(mask.dtype).eps)  # files may be kept in half
    if not error <= tolerance:  # NaN is an error, too
        raise WeightsError(
            f"{key} is off by {error:.3g} from the mask of radius {radius}, balance {balance} "
            f"and ring {ring if ring is None else round(ring, 4)}: another variant; create the "
            "model with its radii, balances and ring"
        )


# ---- reading files


def read_state_dict(path: str | Path) -> StateDict:
    """Reads the tensors of a checkpoint file without running anything it holds.

    Wrappers (`state_dict`, `model`) and prefixes (`module.`, `model.`, `_orig_mod.`) are removed;
    of a detector or segmenter the `backbone.` is taken.

    Args:
        path: .safetensors, .pth, .pth.tar, .pt or .ckpt; the content decides, not the name.

    Returns:
        Tensors by name.

    Raises:
        WeightsError: a missing, truncated or foreign file, or one that holds Python objects.
    """
    tensors = _unwrap(read_checkpoint(path))
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors by name, so it is no checkpoint")
    for key, value in tensors.items():
        dense = value.layout is torch.strided and not value.is_quantized
        if not dense or value.device.type != "cpu":
            raise WeightsError(f"{path}: {key} is no plain tensor")
    return _strip_prefixes(tensors)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint file whole, without running anything it holds.

    Raises:
        WeightsError: a missing, truncated or foreign file, or one that holds Python objects.
    """
    path = Path(path)
    head = _read_head(path)
    try:
        content = load_file(path) if _is_safetensors(head) else _load_torch(path)
    except Exception as error:
        # Both loaders raise a dozen types on damaged input; all mean the same to the user.
        raise WeightsError(f"{path}: {_diagnose(head, error)}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def _load_torch(path: Path) -> Any:
    # The released files come from training scripts that stored their arguments and best metric
    # beside the weights. These types hold values alone; NumPy 2 renamed a module of theirs.
    scalar = np.float64(0).__reduce__()[0]
    harmless: list[Any] = [
        argparse.Namespace,
        np.dtype,
        *(type(np.dtype(code)) for code in ("f8", "f4", "f2", "i8", "i4", "?")),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    ]
    # An open file: of a path, newer versions of torch would go by its suffix.
    with (
        path.open("rb") as file,
        torch.serialization.safe_globals(harmless),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # what is wrong with a file, its error says
        return torch.load(file, map_location="cpu", weights_only=True)


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    if not head:
        raise WeightsError(f"{path}: the file is empty")
    return head


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{"  # eight bytes of length, then JSON


def _diagnose(head: bytes, error: Exception) -> str:
    """What is wrong with a file that begins with `head` and could not be loaded."""
    if unsafe := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return (
            f"holds Python objects ({unsafe[1]}) that could run code, so it is refused; "
            "save its state_dict alone, or as safetensors"
        )
    if head.lstrip()[:1] == b"<":
        return "a web page, not weights; the download gave its page instead of the file"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not weights; fetch the file itself with: git lfs pull"
    if _is_safetensors(head):
        return "a truncated or damaged safetensors file"
    if head.startswith((b"PK", b"\x80")):  # a zip archive, or the pickle of older releases
        return "a truncated or damaged PyTorch file"
    return "neither a PyTorch nor a safetensors file, or damaged at its start"


def _unwrap(content: Mapping[str, Any]) -> StateDict:
    for _ in range(3):  # deeper than any training script; a damaged file may hold itself
        inner = [content.get(wrapper) for wrapper in ("state_dict", "model")]
        content = next((value for value in inner if isinstance(value, Mapping)), content)
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    return {key: value for key, value in named.items() if isinstance(value, Tensor)}


def _strip_prefixes(tensors: StateDict) -> StateDict:
    # DataParallel, a trainer and torch.compile prefix every key, in any order.
    for _ in range(4):
        for prefix in ("module.", "model.", "_orig_mod."):
            if all(key.startswith(prefix) for key in tensors):
                tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    # A detector holds neck and heads beside its backbone.
    backbone = {key: value for key, value in tensors.items() if key.startswith("backbone.")}
    return {key.removeprefix("backbone."): v for key, v in backbone.items()} or tensors


# ---- loading into a model


@dataclass
class LoadReport:
    """What `load_weights` did.

    Attributes:
        path: The file.
        released: Whether it had the released code's names.
        loaded: Number of tensors loaded.
        skipped: Keys of the file that were left out, each with the reason.
        fresh: Keys of the model that keep their values, each with the reason.
    """

    path: str
    released: bool
    loaded: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Returns a line on the whole and one for each reason to leave keys out."""
        names = "the released names" if self.released else "our names"
        lines = [f"{self.path}: {self.loaded} tensors loaded ({names})"]
        for verb, keys in (("left out", self.skipped), ("not in the file", self.fresh)):
            for reason in dict.fromkeys(keys.values()):
                of_reason = [key for key, why in keys.items() if why == reason]
                lines.append(f"{verb}: {_list(of_reason)} ({reason})")
        return "\n".join(lines)


def load_weights(model: nn.Module, path: str | Path, reset_classifier: bool = False) -> LoadReport:
    """Loads a checkpoint file, ours or the authors', into a model of this package.

    Args:
        model: Made by `timm.create_model`, `features_only=True` included.
        path: .safetensors, .pth, .pth.tar, .pt or .ckpt.
        reset_classifier: Keep the model's own classifier where the file has none or one of
            another shape (for fine-tuning on other classes).

    Returns:
        What was loaded, and what was not and why.

    Raises:
        WeightsError: an unreadable file, a missing or unexpected key, another shape or mask.
        ValueError: the model is on the meta device, where it has no place for values.
    """
    target = getattr(model, "model", model)  # features_only wraps the network
    own = target.state_dict()
    if any(value.is_meta for value in own.values()):
        raise ValueError("the model is on the meta device; call model.to_empty(device=...) first")
    tensors = read_state_dict(path)
    report = LoadReport(str(path), is_official(tensors))
    try:
        tensors = convert_official(tensors, **_spectral_arguments(target))
        tensors = _match(tensors, own, report, reset_classifier)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    target.load_state_dict(tensors, strict=False)  # `_match` has accounted for every key
    report.loaded = len(tensors)
    return report


def _match(
    tensors: StateDict, own: Mapping[str, Tensor], report: LoadReport, reset_classifier: bool
) -> StateDict:
    """Returns what to load; accounts for each other key in the report or raises."""
    parts = {_part(key) for key in own}
    for key in sorted(tensors.keys() - own.keys()):
        if _part(key) not in parts and re.fullmatch(_OPTIONAL, _part(key)):
            report.skipped[key] = f"the model has no {_part(key)}"
    if unexpected := sorted(tensors.keys() - own.keys() - report.skipped.keys()):
        raise WeightsError(f"unexpected key {_list(unexpected, 1)}, the model has no such tensor")

    has_norms = any(key.startswith("output_norms.") for key in tensors)
    for key in sorted(own.keys() - tensors.keys()):
        if key.startswith("output_norms.") and not has_norms:
            report.fresh[key] = "weights of a classifier"
        elif key.endswith(("balance_logit", "ring_logit")):
            report.fresh[key] = "learnt from the model's own balances and ring"
        elif key.startswith("head.") and reset_classifier:
            report.fresh[key] = "the file has no such classifier"
    if missing := sorted(own.keys() - tensors.keys() - report.fresh.keys()):
        raise WeightsError(f"missing key {_list(missing, 1)}")

    for key in sorted(own.keys() & tensors.keys()):
        theirs, ours = tensors[key], own[key]
        if theirs.shape != ours.shape and key.startswith("head.") and reset_classifier:
            report.fresh[key] = "the file's classifier has another shape"
        elif theirs.shape != ours.shape:
            shapes = f"{tuple(theirs.shape)} in the file, {tuple(ours.shape)} in the model"
            raise WeightsError(f"{key} has shape {shapes}")
        elif theirs.is_floating_point() != ours.is_floating_point():
            raise WeightsError(f"{key} holds {theirs.dtype} in the file, {ours.dtype} in the model")
    return {key: tensors[key] for key in own if key in tensors and key not in report.fresh}


# What a model may lack as a whole, for being a feature extractor, or pruned, or headless.
_OPTIONAL = r"head|norm|output_norms\.\d|stages\.\d"


def _part(key: str) -> str:
    depth = 2 if key.startswith(("stages.", "output_norms.")) else 1
    return ".".join(key.split(".")[:depth])


def _list(keys: Sequence[str], limit: int = 4) -> str:
    more = len(keys) - limit
    return ", ".join(keys[:limit]) + (f" (and {more} more)" if more > 0 else "")
