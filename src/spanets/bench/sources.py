"""What is timed: networks by their names, checkpoints of any task, and exported files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from torch import nn
from tqdm import tqdm

import spanets
from spanets.backbones.factory import create_model
from spanets.bench.running import Setting
from spanets.sources import is_checkpoint, open_source
from spanets.tasks import load_task
from spanets_runtime.errors import UsageError
from spanets_runtime.onnx import is_exported

FORMS = ("default", "fft")


@dataclass(frozen=True)
class Source:
    """One of those that are timed side by side.

    Attributes:
        name: timm name, or the path of a checkpoint or an exported file.
        form: "default", or "fft" for the form with Fourier transforms.
        network: Takes images (B, C, H, W); of an exported file its path.
    """

    name: str
    form: str
    network: nn.Module | Path


def build_form(name: str, form: str = "default", **arguments: Any) -> nn.Module:
    """Builds a model in one of the forms of its function."""
    if form == "fft":
        arguments["spectral_method"] = "fft"
    return create_model(name, arguments)


def check_sources(names: Sequence[str], forms: Sequence[str], setting: Setting) -> None:
    """Refuses what cannot be timed so, before anything is built.

    Args:
        names: As in `Source`.
        forms: Wanted of this package's models.
        setting: How they are run.

    Raises:
        UsageError: an unknown form, a model that has none of the forms, or a file that does not
            run there.
    """
    assert forms
    if unknown := set(forms) - set(FORMS):
        raise UsageError(f"--form is {min(unknown)!r}, allowed: {', '.join(FORMS)}")
    if setting.dtype != "float32" and all(map(is_exported, names)):
        raise UsageError(f"--dtype {setting.dtype} does not change exported files; leave it out")
    own = set(spanets.list_models())
    for name in names:
        if name.lower().endswith(".pt2"):
            raise UsageError(f"{name} is a program of torch.export; bench takes FILE.onnx")
        if is_exported(name) and setting.backend != "onnx":
            raise UsageError(
                f"{name} runs in onnxruntime, not {setting.backend}; add --backend onnx"
            )
        if "default" not in forms and name not in own:
            raise UsageError(
                f"--form {' '.join(forms)}: {name} has none, only this package's models by name do"
            )


def build_sources(
    names: Sequence[str], forms: Sequence[str], size: int, train: bool
) -> list[Source]:
    """Builds all that is timed at one image size, in the order that it was given.

    Args:
        names: As in `Source`; those of networks get random weights.
        forms: Of this package's models; others have "default" alone.
        size: Image side, in pixels.
        train: For training steps.

    Raises:
        UsageError: an unknown name, or a checkpoint that is no classifier, for training steps.
        UserError: an unreadable file.
    """
    own = set(spanets.list_models())
    wanted = [(name, form) for name in names for form in forms if form == "default" or name in own]
    return [
        Source(name, form, _build(name, form, size, train))
        for name, form in tqdm(wanted, desc="build", disable=None, leave=False)
    ]


def _build(name: str, form: str, size: int, train: bool) -> nn.Module | Path:
    if is_exported(name):
        return Path(name)
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise UsageError(f"{name} is a folder; give a checkpoint or a file in it")
    if is_checkpoint(name):
        try:
            source = open_source(name)
            task = load_task(source.info.task)
            network = task.exportable(source, features_only=False)
        except UsageError as error:  # it has no form that is one network from images to outputs
            raise UsageError(
                f"{name} is none of the classifiers, segmenters and RetinaNets that bench times"
            ) from error
        if train and not task.is_classifier:
            raise UsageError(
                f"{name} is for {source.info.task}; --train times training steps of classifiers"
            )
        return network
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    # Those with embeddings of positions are made for one size.
    arguments = {"img_size": size} if config and config.fixed_input_size else {}
    return build_form(name, form, **arguments)
