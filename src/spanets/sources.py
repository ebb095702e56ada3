"""The single entry point for models: `open_source` opens whatever a user names, and reads it once.

A source is a model's name, a checkpoint, an exported file, a folder or hub address that
`spanets push` wrote, or a `module:function`. `open_source` returns the network, its metadata and
its preprocessing.
"""

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spanets.adapters import add_base
from spanets.backbones.factory import create_model, create_pretrained, has_published_weights
from spanets.backbones.published_classes import published_classes
from spanets.checkpoint import ModelInfo, read_own, weights_of
from spanets.restoring import restore_model
from spanets.tasks import DEFAULT_TASK, load_task
from spanets.version import __version__
from spanets.weights import LoadReport, load_weights
from spanets.weights.adapters import BASE_KEY
from spanets_runtime.arrays import PIXEL_KEYS
from spanets_runtime.errors import UsageError, UserError, first_line
from spanets_runtime.onnx import (
    ExportedFile,
    image_level_predictor,
    is_exported,
    open_exported,
)
from spanets_runtime.preprocessing import Pixels
from spanets_runtime.reading import read_text_file

WEIGHT_SUFFIXES = (".ckpt", ".pth", ".pt", ".tar", ".bin", ".safetensors")

HUB = "hf-hub:"

PIXELS = "spanets_pixels"
"""Entry of config.json with what timm's preprocessing lacks; see `PixelFormat`."""

# Entries of a timm configuration that describe the preprocessing.
_PREPROCESSING = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")

TASK_KEY = "spanets_task"
"""Key of a pushed config.json with what timm lacks: another task than its own, a calibration."""

# Largest config.json that is read, in bytes.
_MOST_CONFIG = 2**24


@dataclass(frozen=True)
class Source:
    """An opened model: network, metadata and origin.

    Attributes:
        word: Name or path that the user gave.
        network: Network in evaluation mode, on the CPU.
        info: Metadata. For a model's name it has no recipe, and classes only with ImageNet weights.
        path: File that the model was read from, or None.
        has_weights: Whether the weights were loaded; otherwise they are random.
        exported: Whether this is an exported file, which the network runs with its runtime.
        content: Content of the checkpoint other than the weights.
        report: Report on the weights file, or None if there was none.
    """

    word: str
    network: nn.Module
    info: ModelInfo
    path: Path | None = None
    has_weights: bool = True
    exported: bool = False
    content: Mapping[str, Any] = field(default_factory=dict)
    report: LoadReport | None = None

    @cached_property
    def preprocess(self) -> Any:
        """Evaluation transform from a decoded image to the network's input.

        Raises:
            UserError: damaged preprocessing.
        """
        return load_task(self.info.task).make_preprocess(self.info, self.word)

    @property
    def is_checkpoint(self) -> bool:
        """Whether `spanets train` wrote this checkpoint."""
        return self.path is not None and not self.exported and bool(self.info.recipe)

    def require_classes(self, accepted: str = "a checkpoint, an exported file") -> None:
        """Raises a UsageError, which names what is accepted, if the outputs have no names."""
        if not self.info.classes:
            raise UsageError(
                f"{self.word} is a model without class names; give {accepted}, or a model with "
                "published weights, which `spanets weights list` shows"
            )

    def require_layers(self) -> None:
        """Raises a UsageError for an exported file, whose layers cannot be seen."""
        if self.exported:
            raise UsageError(
                f"{self.word} is an exported file, whose layers cannot be seen; give the "
                "checkpoint it was exported from"
            )

    def require_classifier(self) -> None:
        """Raises a UserError if the model is not a classifier."""
        if self.info.task != DEFAULT_TASK:
            raise UserError(f"{self.word}: is for {self.info.task}, not for {DEFAULT_TASK}")

    def require_image_level(self) -> None:
        """Raises a UserError if the model does not map each image to one row of outputs."""
        if not load_task(self.info.task).is_image_level:
            raise UserError(f"{self.word}: is for {self.info.task}; this command takes classifiers")


def open_source(
    word: str | Path,
    weights: str | Path | None = None,
    ema: bool | None = None,
    model_args: Mapping[str, Any] | None = None,
    pretrained: bool | None = False,
) -> Source:
    """Opens the model that a user names.

    Args:
        word: A timm name, with or without a tag; a checkpoint of `spanets train`; a file of
            `spanets export`; a folder that `spanets push` wrote, or its hub address
            "hf-hub:OWNER/NAME"; or "module:function", an importable function without arguments
            that returns a network.
        weights: Weights file, ours or the authors'; only with a timm name.
        ema: Which weights to load if the file also has averaged ones; see `load_weights`.
        model_args: Model arguments; only with a timm name.
        pretrained: Whether a timm name gets its published weights, which are fetched if need be;
            None means if there are any. Otherwise, without `weights`, they are random, from a
            fixed seed.

    Raises:
        UsageError: unknown name, no published weights, weights or arguments for a source that has
            its own, or a function that returns no network.
        UserError: unreadable file, weights that do not fit, or that cannot be fetched.
    """
    word = str(word)
    if ema is not None and weights is None:
        raise UsageError("--ema goes with --weights")
    if weights is not None and _is_local_file(word):
        return open_checkpoint(word, weights)
    if not is_model_name(word) and (weights is not None or model_args):
        what = "--weights goes" if weights is not None else "arguments go"
        raise UsageError(f"{what} with a model's name; {word} has its own")
    if is_exported(word):
        return _open_exported(word)
    if word.startswith(HUB):
        return _open_folder(_fetch(word), word)
    if is_function(word):
        return _call_function(word)
    if Path(word).is_dir() and (Path(word) / "config.json").is_file():
        return _open_folder(Path(word), word)
    if not is_model_name(word):
        return open_checkpoint(word)
    if weights is not None:
        return _open_weights(word, weights, ema, dict(model_args or {}))
    return _open_name(word, dict(model_args or {}), pretrained)


def is_function(word: str) -> bool:
    """Whether a word names a function that returns a network, as in "module:function"."""
    return ":" in word and not word.startswith(HUB) and not Path(word).exists()


def describe_weights(source: Source) -> str | None:
    """Returns a line about the weights of a model opened by name, or None if a file has them."""
    if not source.has_weights:
        return describe_random(source.word)
    if source.report is None and is_model_name(source.word):
        return f"{source.word}: with its published weights"
    return None


def describe_random(word: str) -> str:
    """Returns a line about a model whose weights are random, and how to give it others."""
    return f"{word}: its weights are random: give --weights FILE, or a checkpoint"


def as_source(given: Source | str | Path) -> Source:
    """Returns a `Source` unchanged, and opens anything else, a timm name with published weights."""
    return given if isinstance(given, Source) else open_source(given, pretrained=True)


class ReadyModel:
    """A model on a device, with its preprocessing: the base class of predictors.

    Args:
        source: A `Source`, or an argument of `open_source`.
        device: torch device; None selects a GPU if there is one.

    Raises:
        UserError: see `open_source`; or damaged preprocessing.
    """

    def __init__(self, source: Source | str | Path, device: str | None = None) -> None:
        self.source = as_source(source)
        self.info = self.source.info
        self.preprocess = self.source.preprocess
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = self.source.network.to(self.device)

    @torch.inference_mode()
    def run(self, image: Pixels) -> NDArray[np.float32]:
        """Returns the outputs (outputs,) for a decoded image of a network of one row an image."""
        batch = torch.from_numpy(self.preprocess(image))[None].to(self.device)
        return self.model(batch)[0].float().cpu().numpy()


def _is_local_file(word: str) -> bool:
    return is_checkpoint(word) and not is_exported(word) and Path(word).is_file()


def is_model_name(word: str) -> bool:
    """Whether a word can only be a model's name, known or not."""
    return not (is_exported(word) or is_checkpoint(word) or ":" in word or Path(word).is_dir())


def is_checkpoint(source: str) -> bool:
    """Whether source is a file's path, even of a missing file, rather than a model's name."""
    path = Path(source)
    is_path = len(path.parts) > 1 and ":" not in source  # excludes hf-hub:owner/name
    return path.is_file() or is_path or path.suffix in WEIGHT_SUFFIXES


def _open_name(word: str, arguments: dict[str, Any], pretrained: bool | None) -> Source:
    optional = pretrained is None
    if optional:
        pretrained = has_published_weights(word)
    with _fixed_seed():
        if not pretrained:
            return _describe_named(word, create_model(word, arguments), arguments)
        try:
            model = create_pretrained(word, arguments)
        except UsageError:
            raise
        except UserError as error:
            ways = "--weights FILE or --no-pretrained" if optional else "--weights FILE"
            raise UserError(f"{error}; or give {ways}") from error
    return _describe_named(word, model, arguments, published_classes(model), True)


def _open_weights(
    word: str, weights: str | Path, ema: bool | None, arguments: dict[str, Any]
) -> Source:
    with _fixed_seed():
        model = create_model(word, arguments)
    report = load_weights(model, weights, ema=ema)
    return replace(
        _describe_named(word, model, arguments, published_classes(model), True), report=report
    )


def _describe_named(
    word: str,
    model: nn.Module,
    arguments: dict[str, Any],
    classes: Sequence[str] = (),
    has_weights: bool = False,
) -> Source:
    name = word.partition(".")[0]  # without a tag, which says only which weights
    info = ModelInfo(name, arguments, list(classes), _preprocessing_of(model), {}, __version__)
    return Source(word, model.eval(), info, has_weights=has_weights)


@contextmanager
def _fixed_seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _preprocessing_of(model: nn.Module) -> dict[str, Any]:
    config = timm.data.resolve_model_data_config(model)
    values = {name: config[name] for name in _PREPROCESSING}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _call_function(word: str) -> Source:
    module, _, function = word.partition(":")
    try:
        model = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, TypeError) as error:
        raise UsageError(f"{word}: {error}; give module:function, importable from here") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{word}: returns a {type(model).__name__}, must be a torch.nn.Module")
    return Source(word, model.eval(), ModelInfo(word, {}, [], _preprocessing_of(model), {}, ""))


# ---- exported files


class ExportedNetwork(nn.Module):
    """An exported file as a module, from images (B, 3, H, W) to its first output.

    Its runtime runs it on the CPU, in batches of the file's own batch size.

    Args:
        file: Open file whose input is images.
    """

    def __init__(self, file: ExportedFile) -> None:
        super().__init__()
        self.file = file
        self.batch = file.shape[0]

    def forward(self, images: Tensor) -> Tensor:
        """Returns the first output.

        Raises:
            UserError: the runtime cannot run the graph.
        """
        size = self.batch if isinstance(self.batch, int) else len(images)
        found = [self.file.run(part.cpu().numpy())[0] for part in images.split(size)]
        return torch.from_numpy(np.concatenate(found)).to(images.device)


def _open_exported(word: str) -> Source:
    file = open_exported(word)
    task = file.task or DEFAULT_TASK
    classes = image_level_predictor(file).classes if load_task(task).is_image_level else []
    model, version = (str(file.metadata.get(key, "")) for key in ("model", "version"))
    fitted = file.metadata.get("calibration")
    calibration = fitted if isinstance(fitted, dict) else {}
    fitted = file.metadata.get("thresholds")
    if isinstance(fitted, list):
        calibration = {"thresholds": fitted}
    info = ModelInfo(
        model, {}, classes, file.preprocessing, {}, version, task, calibration=calibration
    )
    return Source(word, ExportedNetwork(file), info, Path(word), exported=True)


# ---- folders in timm's format


def _fetch(word: str) -> Path:
    """Downloads only config.json and the weights of a hub repository."""
    from huggingface_hub import snapshot_download

    name = word.removeprefix(HUB)
    try:
        wanted = ["config.json", "model.safetensors"]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # from the hub's library, the network or the disk
        raise UserError(f"{word}: cannot be fetched ({first_line(error)})") from error


def _open_folder(folder: Path, word: str) -> Source:
    """Opens a folder of `spanets push` or timm, with config.json and model.safetensors."""
    try:
        config = json.loads(read_text_file(folder / "config.json", _MOST_CONFIG))
        name, cfg = str(config["architecture"]), dict(config["pretrained_cfg"])
        classes = config.get("label_names", cfg.get("label_names"))
        classes = classes or [str(i) for i in range(int(config["num_classes"]))]
        arguments = dict(config.get("model_args", {}))
        preprocessing = {key: cfg[key] for key in _PREPROCESSING if key in cfg}
        pixels = dict(config.get(PIXELS, {}))
        preprocessing |= {key: pixels[key] for key in PIXEL_KEYS if key in pixels}
        own = dict(config.get(TASK_KEY, {}))
        calibration, task = dict(own.get("calibration", {})), str(own.get("name", DEFAULT_TASK))
        names = [str(c) for c in classes]
        info = ModelInfo(
            name, arguments, names, preprocessing, {}, __version__, task, calibration=calibration
        )
        if not load_task(task).is_image_level:
            raise UsageError(f"it is for {task}")
    except UsageError as error:
        raise UserError(f"{word}: its config.json is damaged ({error})") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{word}: its config.json is damaged ({first_line(error)})") from error
    model = create_model(name, arguments, num_classes=len(info.classes))
    load_weights(model, folder / "model.safetensors")
    return Source(word, model.eval(), info, folder / "model.safetensors")


# ---- checkpoints


def open_checkpoint(path: str | Path, weights: str | Path | None = None) -> Source:
    """Reads a checkpoint of `spanets train` once and builds its model.

    Args:
        path: The file.
        weights: Weights file that it adapts, if it holds an adapter alone; see `adapters`.

    Raises:
        UsageError: weights for a checkpoint that has its own.
        WeightsError: unreadable file, unknown model, or weights that do not fit it.
    """
    return build_source(path, *read_own(path), weights)


def build_source(
    path: str | Path,
    info: ModelInfo,
    content: Mapping[str, Any],
    weights: str | Path | None = None,
) -> Source:
    """Builds the model of a checkpoint that was already read; see `open_checkpoint`."""
    if BASE_KEY in content:
        content = add_base(path, info, content, weights)
    elif weights is not None:
        raise UsageError(f"--weights goes with a model's name; {path} has its own")
    model = restore_model(path, info, weights_of(content, path))
    rest: dict[str, Any] = {key: content[key] for key in ("epoch", "loops") if key in content}
    return Source(str(path), model.eval(), info, Path(path), content=rest)
