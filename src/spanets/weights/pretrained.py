"""Handles `pretrained=True`, for which this package hosts no weights."""

from collections.abc import Mapping
from typing import Any

from spanets.weights.released import RELEASES

_SOURCES = ("url", "file", "hf_hub_id", "state_dict", "source")


def check_pretrained(name: str, pretrained: bool, kwargs: Mapping[str, Any]) -> None:
    """Checks that a call with `pretrained=True` names a source of weights.

    Raises:
        RuntimeError: no source was given; the message tells where to download weights.
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
    """Whether a timm configuration (a mapping, timm's class, a tag or None) names a source."""
    entries = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
    return any(entries.get(source) for source in _SOURCES)
