"""Weights into a model: a file's, strictly, and what timm is asked for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from spanets.mixers import MERGES
from spanets.weights.files import StateDict, WeightsError, read_state_dict
from spanets.weights.released import RELEASES, convert_official, is_official

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
    _check_arguments(tensors, own)
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


def _check_arguments(tensors: StateDict, own: Mapping[str, Tensor]) -> None:
    """Names SPANetV2's arguments where the file's weights were trained with others."""
    both = sorted(own.keys() & tensors.keys())
    for key in (key for key in both if key.endswith(".interleaved")):
        if bool(tensors[key]) != bool(own[key]):
            theirs, ours = _merge_name(tensors[key]), _merge_name(own[key])
            raise WeightsError(
                f"{key}: the file's heads are {theirs}, the model's {ours}; create the model with "
                f'merge="{theirs}"'
            )
    for key in sorted(own.keys() ^ tensors.keys()):
        if key.endswith(".filter.alpha") and key.replace(".alpha", ".logits") in both:
            in_file = key in tensors
            raise WeightsError(
                f"{key} is in the {'file' if in_file else 'model'} alone; create the model with "
                f"scaled_gate={in_file}"
            )
    for key in (key for key in both if key.endswith(".filter.logits")):
        if tensors[key].shape[1:] != own[key].shape[1:]:
            shapes = (
                f"{tuple(tensors[key].shape)} in the file, {tuple(own[key].shape)} in the model"
            )
            raise WeightsError(
                f"{key} has shape {shapes}; create the model with the img_size that the file's "
                "filters were made for, it takes images of any size all the same"
            )


def _merge_name(interleaved: Tensor) -> str:
    return MERGES[0] if interleaved else MERGES[1]


# What a model may lack as a whole, for being a feature extractor, or pruned, or headless.
_OPTIONAL = r"head|norm|output_norms\.\d|stages\.\d"


def _part(key: str) -> str:
    depth = 2 if key.startswith(("stages.", "output_norms.")) else 1
    return ".".join(key.split(".")[:depth])


def _list(keys: Sequence[str], limit: int = 4) -> str:
    more = len(keys) - limit
    return ", ".join(keys[:limit]) + (f" (and {more} more)" if more > 0 else "")
