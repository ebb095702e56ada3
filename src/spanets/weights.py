"""Weights from files: the authors' releases under our names, safely read and strictly loaded.

Nothing here executes what a file holds: safetensors, or `torch.load(weights_only=True)`.
"""

import argparse
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from spanets.errors import UserError
from spanets.mixers import BALANCES
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


@dataclass
class LoadReport:
    """What `load_weights` did.

    Attributes:
        path: The file.
        released: Whether it had the released code's names.
        loaded: Number of tensors loaded.
        skipped: Keys of the file that were left out, each with the reason.
        fresh: Keys of the model that keep their initial values, each with the reason.
    """

    path: str
    released: bool
    loaded: int
    skipped: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Returns a line on the whole and one for each reason to leave keys out."""
        names = "the released names" if self.released else "our names"
        lines = [f"{self.path}: {self.loaded} tensors loaded ({names})"]
        for verb, keys in (("left out", self.skipped), ("not in the file", self.fresh)):
            for reason in dict.fromkeys(keys.values()):
                of_reason = [key for key, why in keys.items() if why == reason]
                lines.append(f"{verb}: {', '.join(of_reason)} ({reason})")
        return "\n".join(lines)


def check_pretrained(name: str, pretrained: bool, kwargs: Mapping[str, Any]) -> None:
    """Explains `pretrained=True`, unless the call itself names a source of weights.

    Raises:
        RuntimeError: no source was given.
    """
    sources = ("url", "file", "hf_hub_id", "state_dict", "source")
    configs = (kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay"))
    given = [config for config in configs if config is not None and not isinstance(config, str)]
    values = [c.get(s) if isinstance(c, Mapping) else getattr(c, s, None) for c in given for s in sources]
    if not pretrained or any(values):
        return
    family = name.split("_")[0]
    raise RuntimeError(
        f"no weights of {name} are hosted for this package. The authors publish theirs at "
        f"{RELEASES[family]}; download the file, then: "
        f'model = timm.create_model("{name}"); spanets.load_weights(model, "FILE")'
    )


def adapt_state_dict(state_dict: StateDict, model: nn.Module) -> StateDict:
    """Renames a released state dict for `model`; timm's hook for files given by the user."""
    return convert_official(state_dict, **_spectral_arguments(model))


def is_official(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of the released code."""
    return any(key.startswith(("patch_embed.", "downsample_layers.")) for key in state_dict)


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
        WeightsError: a key that SPANet does not have, a gate that is missing, or another mask.
    """
    if not is_official(state_dict):
        return dict(state_dict)
    converted: StateDict = {}
    gates: dict[str, dict[str, Tensor]] = {}
    for key, value in state_dict.items():
        if mask := re.fullmatch(r"network\.(\d)\.\d+\.token_mixer\.sps\.(\d+)\.filter", key):
            stage, gate = int(mask[1]) // 2, int(mask[2])
            _check_mask(key, value, radii[stage], balances, gate, ring)
        elif gate_key := re.fullmatch(r"(network\.\d\.\d+\.token_mixer\.)pws\.(.*)", key):
            gates.setdefault(_rename(gate_key[1] + "context.bias"), {})[gate_key[2]] = value
        else:
            converted[_rename(key)] = value
    for name, parts in gates.items():
        prefix = name.removesuffix("bias")
        try:
            weights = [parts.pop(f"{i}.weight") for i in range(len(balances))]
            biases = [parts.pop(f"{i}.bias") for i in range(len(balances))]
        except KeyError as missing:
            raise WeightsError(
                f"missing key pws.{missing.args[0]} of {prefix}, one of {len(balances)} gates"
            ) from None
        if parts:
            raise WeightsError(f"unexpected key pws.{min(parts)} of {prefix}")
        converted[prefix + "weight"] = torch.cat(weights, dim=1).flatten(1)
        converted[prefix + "bias"] = torch.stack(biases)
    return converted


# Released name -> ours, tried in order; `\d` stage numbers are mapped by `_rename`.
_RENAMES = [
    (r"patch_embed\.proj\.(.+)", r"stem.conv.\1"),
    (r"network\.([135])\.proj\.(.+)", r"stages.<\1>.downsample.conv.\2"),
    (r"network\.([0246])\.(\d+)\.token_mixer\.conv\.0\.(.+)", r"stages.<\1>.blocks.\2.token_mixer.conv_row.\3"),
    (r"network\.([0246])\.(\d+)\.token_mixer\.conv\.1\.(.+)", r"stages.<\1>.blocks.\2.token_mixer.conv_column.\3"),
    (r"network\.([0246])\.(\d+)\.(token_mixer\.(?:proj_in|proj_out|context)\..+)", r"stages.<\1>.blocks.\2.\3"),
    (r"network\.([0246])\.(\d+)\.((?:norm[12]|mlp\.fc[12]|res_scale[12])\..+)", r"stages.<\1>.blocks.\2.\3"),
    (r"norm([0246])\.(.+)", r"output_norms.<\1>.\2"),
    (r"norm\.(.+)", r"norm.\1"),
    (r"head\.(.+)", r"head.fc.\1"),
]  # fmt: skip


def _rename(key: str) -> str:
    for pattern, replacement in _RENAMES:
        match = re.fullmatch(pattern, key)
        if match:
            # network.{0,2,4,6} are the stages, network.{1,3,5} the downsamplings before 1, 2, 3.
            name = match.expand(replacement)
            return re.sub(r"<(\d)>", lambda number: str((int(number[1]) + 1) // 2), name)
    raise WeightsError(f"unexpected key {key}: no part of a released SPANet")


def _check_mask(
    key: str,
    mask: Tensor,
    radius: float,
    balances: Sequence[float],
    gate: int,
    ring: float | None,
) -> None:
    if gate >= len(balances):
        raise WeightsError(f"unexpected key {key}: the model has {len(balances)} gates")
    if mask.ndim != 3 or mask.shape[0] != 1:
        raise WeightsError(f"{key} has shape {tuple(mask.shape)}, a mask is (1, H, W)")
    expected = low_frequency_mask(*mask.shape[1:], radius, balances[gate], ring)
    error = (mask[0].float() - expected).abs().max().item()
    if not error <= MASK_TOLERANCE:
        raise WeightsError(
            f"{key} is off by {error:.3g} from the mask of radius {radius}, balance "
            f"{balances[gate]} and ring {ring if ring is None else round(ring, 4)}: "
            "another variant; create the model with its radii, balances and ring"
        )


def read_state_dict(path: str | Path) -> StateDict:
    """Reads the tensors of a checkpoint file without running anything it holds.

    Wrappers (`state_dict`, `model`) and prefixes (`module.`, `model.`, `backbone.`) are removed;
    of a detector or segmenter the backbone is taken.

    Args:
        path: .safetensors, .pth, .pth.tar, .pt or .ckpt; the content decides, not the name.

    Returns:
        Tensors by name.

    Raises:
        WeightsError: a missing, truncated or foreign file, or one that holds Python objects.
    """
    content = read_checkpoint(path)
    tensors = _unwrap(content)
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors by name, so it is no checkpoint")
    return _strip_prefixes(tensors)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint file whole, without running anything it holds.

    Raises:
        WeightsError: a missing, truncated or foreign file, or one that holds Python objects.
    """
    path = Path(path)
    head = _read_head(path)
    try:
        if head[8:9] == b"{":
            return load_file(path)
        content = _load_torch(path)
    except SafetensorError as error:
        raise WeightsError(f"{path}: truncated or damaged safetensors file ({error})") from None
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
        if unsafe is None:
            raise WeightsError(_describe_foreign(path, head)) from None
        raise WeightsError(
            f"{path}: holds Python objects ({unsafe[1]}) that could run code, so it is refused; "
            "save its state_dict alone, or as safetensors"
        ) from None
    except Exception as error:
        # torch.load raises a dozen types on damaged input; all mean the same to the user.
        if head[:2] == b"PK":
            raise WeightsError(f"{path}: truncated or damaged PyTorch file") from error
        raise WeightsError(_describe_foreign(path, head)) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def _load_torch(path: Path) -> Any:
    # The released files come from training scripts that stored their arguments and best metric
    # beside the weights. These types hold values alone.
    scalar = np.float64(0).__reduce__()[0]
    harmless = [argparse.Namespace, np.dtype, scalar, type(np.dtype("f8")), type(np.dtype("f4"))]
    with torch.serialization.safe_globals(harmless):
        return torch.load(path, map_location="cpu", weights_only=True)


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


def _describe_foreign(path: Path, head: bytes) -> str:
    if head.lstrip()[:1] == b"<":
        return f"{path}: a web page, not weights; the download gave its page instead of the file"
    return f"{path}: neither a PyTorch nor a safetensors file, or damaged at its start"


def _unwrap(content: Mapping[str, Any]) -> StateDict:
    for wrapper in ("state_dict", "model"):
        if isinstance(content.get(wrapper), Mapping):
            return _unwrap(content[wrapper])
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def _strip_prefixes(tensors: StateDict) -> StateDict:
    for prefix in ("module.", "model.", "backbone."):
        inner = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
        # A detector holds neck and heads beside its backbone; other prefixes cover all keys.
        if inner and (prefix == "backbone." or len(inner) == len(tensors)):
            tensors = inner
    return tensors


def load_weights(
    model: nn.Module, path: str | Path, reset_classifier: bool = False
) -> LoadReport:
    """Loads a checkpoint file, ours or the authors', into a model of this package.

    Args:
        model: Made by `timm.create_model`, `features_only=True` included.
        path: .safetensors, .pth, .pth.tar, .pt or .ckpt.
        reset_classifier: Keep the model's own classifier where the file's has another shape
            (for fine-tuning on other classes).

    Returns:
        What was loaded, and what was not and why.

    Raises:
        WeightsError: an unreadable file, a missing or unexpected key, another shape or mask.
    """
    target = getattr(model, "model", model)  # features_only wraps the network
    tensors = read_state_dict(path)
    report = LoadReport(str(path), is_official(tensors), 0)
    try:
        tensors = convert_official(tensors, **_spectral_arguments(target))
        tensors = _match(tensors, target.state_dict(), report, reset_classifier)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    target.load_state_dict(tensors, strict=False)  # `_match` has accounted for every key
    report.loaded = len(tensors)
    return report


def _spectral_arguments(model: nn.Module) -> dict[str, Any]:
    names = ("radii", "balances", "ring")
    return {name: getattr(model, name) for name in names if hasattr(model, name)}


def _match(
    tensors: StateDict, own: Mapping[str, Tensor], report: LoadReport, reset_classifier: bool
) -> StateDict:
    """Returns what to load; accounts for each other key in the report or raises."""
    parts = {key.split(".")[0] for key in own}
    given = {key.split(".")[0] for key in tensors}
    for key in sorted(tensors.keys() - own.keys()):
        part = key.split(".")[0]
        if part in parts or part not in ("head", "norm", "output_norms"):
            raise WeightsError(f"unexpected key {key}, the model has no such tensor")
        report.skipped[key] = f"the model has no {part}"
    for key in sorted(own.keys() - tensors.keys()):
        if key.startswith("output_norms.") and "output_norms" not in given:
            report.fresh[key] = "weights of a classifier"
        else:
            raise WeightsError(f"missing key {key}")
    for key in sorted(own.keys() & tensors.keys()):
        theirs, ours = tuple(tensors[key].shape), tuple(own[key].shape)
        if theirs != ours and reset_classifier and key.startswith("head."):
            report.fresh[key] = f"the file's classifier has {theirs[0]} classes"
        elif theirs != ours:
            raise WeightsError(f"{key} has shape {theirs} in the file, {ours} in the model")
    return {key: t for key, t in tensors.items() if key not in report.skipped | report.fresh}
