"""Opens the models to time: names, checkpoints of any task, and exported files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import spanets
from spanets.backbones.factory import create_model, has_fixed_size
from spanets.bench.running import Setting
from spanets.sources import is_checkpoint, is_function, open_source
from spanets.tasks import load_task
from spanets_runtime.errors import UsageError
from spanets_runtime.onnx import is_exported
from spanets_runtime.progress import progress

FORMS = ("default", "fft")


@dataclass(frozen=True)
class TimedModel:
    """One model of a comparison.

    Attributes:
        name: timm name, path of a checkpoint or an exported file, or "module:function".
        form: "default", or "fft" for the form with Fourier transforms.
        network: Network that takes images (B, C, H, W), or the path of an exported file.
    """

    name: str
    form: str
    network: nn.Module | Path


def build_form(name: str, form: str = "default", **arguments: Any) -> nn.Module:
    """Builds a model in one of its forms."""
    if form == "fft":
        arguments["spectral_method"] = "fft"
    return create_model(name, arguments)


def check_models(names: Sequence[str], forms: Sequence[str], setting: Setting) -> None:
    """Checks that the models support the forms and settings, before building them.

    Args:
        names: Names or paths; see `TimedModel`.
        forms: Forms of this package's models.
        setting: Settings of the run.

    Raises:
        UsageError: unknown form, model without forms, or a file that the backend cannot run.
    """
    assert forms
    if unknown := set(forms) - set(FORMS):
        raise UsageError(f"--form is {min(unknown)!r}, allowed: {', '.join(FORMS)}")
    if setting.dtype != "float32" and all(map(is_exported, names)):
        raise UsageError(f"--dtype {setting.dtype} does not change exported files; leave it out")
    own = set(spanets.list_models())
    for name in names:
        if name.lower().endswith(".pt2"):
            raise UsageError(
                f"{name} is a torch.export program; bench takes FILE.onnx, a checkpoint or a name"
            )
        if is_exported(name) and not name.lower().endswith(".onnx"):
            raise UsageError(f"{name}: bench takes FILE.onnx, a checkpoint or a name")
        if is_exported(name) and setting.backend != "onnx":
            raise UsageError(
                f"{name} runs with onnxruntime, not {setting.backend}; add --backend onnx"
            )
        if "default" not in forms and name.partition(".")[0] not in own:
            raise UsageError(
                f"--form {' '.join(forms)}: {name} has only one form; leave out --form, or name a "
                "SPANet or SPANetV2"
            )


def build_models(
    names: Sequence[str], forms: Sequence[str], size: int, train: bool
) -> list[TimedModel]:
    """Builds all models for one image size, in the given order.

    Args:
        names: Names or paths, see `TimedModel`; timm names get random weights.
        forms: Forms of this package's models; other models have only "default".
        size: Image side, in pixels.
        train: Whether training steps will be timed.

    Raises:
        UsageError: unknown name, or training of a checkpoint that is not a classifier.
        UserError: unreadable file.
    """
    own = set(spanets.list_models())
    wanted = [
        (name, form)
        for name in names
        for form in forms
        if form == "default" or name.partition(".")[0] in own
    ]
    return [
        TimedModel(name, form, _build(name, form, size, train))
        for name, form in progress(wanted, "build")
    ]


def _build(name: str, form: str, size: int, train: bool) -> nn.Module | Path:
    if is_exported(name):
        return Path(name)
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise UsageError(f"{name} is a folder; give a checkpoint or a file in it")
    if is_function(name):
        return open_source(name).network
    if is_checkpoint(name) or Path(name).is_dir():
        try:
            source = open_source(name)
            task = load_task(source.info.task)
            network = task.exportable(source, features_only=False)
        except UsageError as error:  # its task has no single network from images to outputs
            raise UsageError(
                f"{name} is not a classifier, segmenter or RetinaNet; bench times only these"
            ) from error
        if train and not task.is_image_level:
            raise UsageError(
                f"{name} is for {source.info.task}; --train times training steps of classifiers"
            )
        return network
    # Models with position embeddings are built for one size.
    arguments = {"img_size": size} if has_fixed_size(name) else {}
    return build_form(name, form, **arguments)
