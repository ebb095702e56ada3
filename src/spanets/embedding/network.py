"""Opens a model and computes the vectors of images at one of its layers."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spanets.analysis.capture import family_of, find_modules, to_maps
from spanets.backbones.factory import has_fixed_size
from spanets.sources import (
    ExportedNetwork,
    Source,
    describe_random,
    is_model_name,
    open_source,
)
from spanets_runtime.errors import UsageError, first_line
from spanets_runtime.onnx import is_exported, open_exported
from spanets_runtime.preprocessing import Preprocessing

PRE_LOGITS = "pre_logits"
"""The default layer: timm's pooled features, which the classifier reads."""

LAST_MAP = "last_map"
"""The only layer of a file that `spanets export --features-only` wrote."""


@dataclass(frozen=True)
class EmbeddingNetwork:
    """A network whose output is the pooled output of one layer.

    Attributes:
        word: Name or path that the user gave.
        network: Network in evaluation mode.
        preprocessing: Values of the preprocessing.
        layer: `PRE_LOGITS`, `LAST_MAP`, or the name of a module.
        source: The opened model, or None for an exported file.
    """

    word: str
    network: nn.Module
    preprocessing: dict[str, Any]
    layer: str
    source: Source | None = None

    @cached_property
    def preprocess(self) -> Preprocessing:
        """Transform from an RGB image to the network's input.

        Raises:
            UserError: damaged preprocessing.
        """
        return Preprocessing.parse(self.preprocessing, self.word)

    @cached_property
    def digest(self) -> str:
        """BLAKE2 digest of all weights and buffers, as hexadecimal digits."""
        found = hashlib.blake2b(digest_size=16)
        if isinstance(self.network, ExportedNetwork):
            with open(self.network.file.path, "rb") as file:
                while block := file.read(2**20):
                    found.update(block)
        for name, value in sorted(self.network.state_dict().items()):
            found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            found.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return found.hexdigest()

    @property
    def notes(self) -> tuple[str, ...]:
        """A line if the weights are random."""
        if self.source is None or self.source.has_weights:
            return ()
        return (describe_random(self.word),)

    def to(self, device: torch.device) -> "EmbeddingNetwork":
        """Returns the same network on a device."""
        return replace(self, network=self.network.to(device))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Returns vectors (B, D), float32, of preprocessed images (B, C, S, S).

        Raises:
            UsageError: the layer's output cannot be pooled, or the model cannot take the size.
        """
        try:
            output = self._run(images)
        # Models raise any kind of exception for unsupported sizes.
        except (RuntimeError, ValueError, AssertionError) as error:
            if "memory" in str(error):
                raise
            height, width = images.shape[2:]
            raise UsageError(
                f"{self.word}: cannot take images of {height}x{width} ({first_line(error)})"
            ) from error
        try:
            return _pool(output, images, self.network).float()
        except ValueError as error:
            reason = str(error).split("; give ")[0]  # what the command has no option for
            raise UsageError(
                f"--layer {self.layer}: {reason}; name another module, or choose another --size"
            ) from error

    def _run(self, images: Tensor) -> Any:
        network: Any = self.network
        if isinstance(network, ExportedNetwork):
            return _run_exported(network, images)
        if self.layer == PRE_LOGITS:
            return network.forward_head(network.forward_features(images), pre_logits=True)
        found: list[Any] = []
        handle = network.get_submodule(self.layer).register_forward_hook(
            lambda _, given, output: found.append(output)
        )
        try:
            network(images)
        finally:
            handle.remove()
        if not found:
            raise UsageError(f"--layer {self.layer}: the network does not call this module")
        return found[-1]


def open_network(
    word: str | Path | Source,
    layer: str | None = None,
    size: int | None = None,
    weights: str | None = None,
    pretrained: bool | None = False,
) -> EmbeddingNetwork:
    """Opens a model for embeddings.

    Args:
        word: See `open_source`; an exported file must have feature maps.
        layer: Name of a module; None means the pooled features before the classifier.
        size: Side of the images in pixels; None means the model's.
        weights: See `open_source`.
        pretrained: See `open_source`.

    Raises:
        UsageError: unknown name or layer, or a network without pooled features and no layer.
        UserError: unreadable file, or one for another task.
    """
    if not isinstance(word, Source) and is_exported(word) and weights is None:
        return _open_exported(str(word), layer, size)
    if isinstance(word, Source):
        source = word
    else:
        fixed = size is not None and is_model_name(str(word)) and has_fixed_size(str(word))
        arguments = {"img_size": size} if fixed else None
        source = open_source(word, weights, model_args=arguments, pretrained=pretrained)
    source.require_image_level()
    if source.exported:
        raise UsageError(f"{source.word}: {_WITHOUT_FEATURES}")
    layer = _choose_layer(source, layer)
    return EmbeddingNetwork(
        source.word, source.network, _sized(source.info.preprocessing, size), layer, source
    )


_WITHOUT_FEATURES = (
    "an exported file outputs classes, not features; give the checkpoint or the model that it was "
    "exported from, or export it with --features-only"
)


def _open_exported(word: str, layer: str | None, size: int | None) -> EmbeddingNetwork:
    file = open_exported(word)
    if not all(len(output.shape) == 4 for output in file.outputs):
        raise UsageError(f"{word}: {_WITHOUT_FEATURES}")
    if layer not in (None, LAST_MAP):
        raise UsageError(f"--layer {layer}: an exported file has only {LAST_MAP}; leave it out")
    preprocessing = _sized(file.preprocessing, size)
    return EmbeddingNetwork(word, ExportedNetwork(file), preprocessing, LAST_MAP)


def _sized(preprocessing: dict[str, Any], size: int | None) -> dict[str, Any]:
    values = {**preprocessing, "crop_mode": "center"}
    if size is not None:
        values["input_size"] = [*values["input_size"][:-2], size, size]
    return values


def _choose_layer(source: Source, layer: str | None) -> str:
    network = source.network
    if layer in (None, PRE_LOGITS):
        if hasattr(network, "forward_head") and hasattr(network, "forward_features"):
            return PRE_LOGITS
        raise UsageError(
            f"{source.word}: has no pooled features by timm's forward_features and forward_head; "
            f"name a module with --layer{_suggest(network)}"
        )
    names = find_modules(network, layer)
    if len(names) > 1:
        raise UsageError(f"--layer {layer!r} matches {len(names)} modules, such as {names[0]}")
    return names[0]


def _suggest(network: nn.Module) -> str:
    """Suggests the module before the last linear layer, which usually is the classifier."""
    names = [name for name, module in network.named_modules() if not list(module.children())]
    linear = [i for i, n in enumerate(names) if isinstance(network.get_submodule(n), nn.Linear)]
    return f", such as {names[linear[-1] - 1]}" if linear and linear[-1] else ""


def _run_exported(network: ExportedNetwork, images: Tensor) -> Tensor:
    """Returns the last map of a file in batches of the file's own batch size."""
    size = network.batch if isinstance(network.batch, int) else len(images)
    found = []
    for part in images.split(size):
        missing = size - len(part)  # a file with a fixed batch takes nothing smaller
        full = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)]) if missing else part
        found.append(torch.from_numpy(network.file.run(full.cpu().numpy())[-1])[: len(part)])
    return torch.cat(found)


def _pool(output: Any, images: Tensor, network: nn.Module) -> Tensor:
    """Averages maps or tokens over space, without class and register tokens.

    Raises:
        ValueError: the output is neither a vector for each image nor a map.
    """
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if isinstance(output, Tensor) and output.ndim == 2 and len(output) == len(images):
        return output
    size = (images.shape[-2], images.shape[-1])
    prefix = getattr(network, "num_prefix_tokens", 0)
    try:
        maps = to_maps(output, size, prefix_tokens=prefix)
    except ValueError:
        family = family_of(network)
        if family is None:
            raise
        maps = to_maps(output, size, family.layout, prefix)
    return maps.float().mean((2, 3))
