"""Handles `pretrained=True`: fetches the weights of a timm configuration and gives them to timm."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from timm.models import resolve_pretrained_cfg
from torch import nn

from spanets.weights.errors import WeightsError
from spanets.weights.fetching import Wanted, default_cache, fetch
from spanets.weights.files import StateDict, read_checkpoint
from spanets.weights.loading import fit_weights
from spanets.weights.mirrors import locations
from spanets.weights.published import nearest_published, release_at
from spanets_runtime.errors import UsageError

Sketch = Callable[..., nn.Module]
"""Builds a model on the meta device from `num_classes` and `in_chans`."""


class NotPublishedError(UsageError, RuntimeError):
    """There are no published weights. timm's convention for this is a RuntimeError."""


def add_weights(name: str, sketch: Sketch, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Fetches the weights that a call with `pretrained=True` asks for.

    They go to timm as a state dict, so that it adapts them to other classes, channels and to
    feature extractors as it does for its own models. Sources other than an address are timm's.

    Args:
        name: timm name of the model, without a tag.
        sketch: Builds the model that the weights are for.
        arguments: Arguments of timm's factory, among them `pretrained_cfg` and `cache_dir`.

    Returns:
        The arguments, with the weights in `pretrained_cfg_overlay`.

    Raises:
        NotPublishedError: the configuration names no weights.
        UserError: the weights cannot be fetched, or are not those of this model.
    """
    overlay = dict(arguments.get("pretrained_cfg_overlay") or {})
    config = resolve_pretrained_cfg(name, arguments.get("pretrained_cfg"), overlay)
    if config.source or config.state_dict or config.file or config.hf_hub_id:
        return dict(arguments)
    if not config.url:
        raise NotPublishedError(
            f"{describe_unpublished(name)}; a file of yours is loaded with: "
            f'model = timm.create_model("{name}"); spanets.load_weights(model, "FILE")'
        )
    if not isinstance(config.url, str):  # timm's pair of an address and a file name
        return dict(arguments)
    model = sketch(num_classes=config.num_classes, in_chans=config.input_size[0])
    cache = arguments.get("cache_dir")
    overlay["state_dict"] = fetch(
        wanted(config.url),
        default_cache() if cache is None else Path(cache),
        partial(read_fitting, model=model),
    )
    return {**arguments, "pretrained_cfg_overlay": overlay}


def wanted(url: str) -> Wanted:
    """Returns the file at an address; a published one may come from the user's mirror.

    Raises:
        UserError: see `mirrors.locations`.
    """
    release = release_at(url)
    if release is None:
        return Wanted(url, [url])
    size = release.size if release.sha256 else None  # a size alone may be that of an older upload
    return Wanted(url, locations(release), size, release.sha256)


def read_fitting(path: Path, model: nn.Module) -> StateDict:
    """Reads a weights file and checks that it is exactly for this model: keys, shapes and masks.

    Args:
        path: The file.
        model: The model, on the meta device.

    Returns:
        The file's tensors under the file's names.

    Raises:
        WeightsError: unreadable, for another model, or with values that are not finite.
    """
    content = read_checkpoint(path)
    try:
        fitted = fit_weights(model, content)
    except WeightsError as error:
        reason = str(error).removeprefix("the weights: ")
        raise WeightsError(f"{path}: not the weights of this model ({reason})") from error
    if broken := fitted.report.not_finite:
        raise WeightsError(f"{path}: {len(broken)} tensors hold NaN or infinity, as {broken[0]}")
    return fitted.found


def forget_weights(model: nn.Module) -> None:
    """Removes the weights from the configuration of a built model, where timm leaves a copy."""
    for owner in (model, getattr(model, "model", None)):
        for attribute in ("pretrained_cfg", "default_cfg"):
            config = getattr(owner, attribute, None)
            if isinstance(config, dict):
                config.pop("state_dict", None)


def describe_unpublished(name: str) -> str:
    """Returns a line about a model of this package without published weights, and what to do."""
    return (
        f"no weights of {name} are published; the nearest model that has some is "
        f"{nearest_published(name)}; or train {name}, or give a weights file"
    )
