"""Captures the outputs of modules as NCHW maps, for any network, layout and data set.

Shape legend: `B` images, `C` channels, `H W` map size, `N = P + H·W` tokens with P prefix tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import isclose, log
from typing import Any

import torch
from torch import Tensor, nn

from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.progress import progress

LAYOUTS = ("auto", "nchw", "nhwc", "tokens")


@dataclass(frozen=True)
class Family:
    """Names and layout of the token mixers in a family of networks.

    Attributes:
        mixers: Pattern of the modules that return the token mixers' outputs.
        layout: Layout of these and the blocks' outputs, if they are not tokens.
    """

    mixers: str
    layout: str = "nchw"

    @property
    def blocks(self) -> str:
        """Pattern of the blocks' names."""
        return self.mixers.rsplit(".", 1)[0]


# By class name. Swin's attention works on windows; its result is a map again after the drop path
# of its branch.
FAMILIES = {
    "SPANet": Family("stages.*.blocks.*.token_mixer"),
    "SPANetV2": Family("stages.*.blocks.*.token_mixer"),
    "MetaFormer": Family("stages.*.blocks.*.token_mixer"),  # PoolFormer, ConvFormer, CAFormer
    "ConvNeXt": Family("stages.*.blocks.*.conv_dw"),
    "FocalNet": Family("layers.*.blocks.*.modulation"),
    "VisionTransformer": Family("blocks.*.attn"),
    "SwinTransformer": Family("layers.*.blocks.*.drop_path1", "nhwc"),
    "SwinTransformerV2": Family("layers.*.blocks.*.drop_path1", "nhwc"),
}

_STAGES = ("stages.*", "layers.*", "layer?", "blocks.*")

Sink = Callable[[str, Tensor], None]


def find_modules(model: nn.Module, sites: str | Sequence[str] = "mixers") -> list[str]:
    """Returns the names of the selected modules, in the order of the network.

    Args:
        model: Any network.
        sites: "mixers" or "blocks" of a known family, or shell patterns of module names, such as
            "stages.*.blocks.*" (`*` matches one part of a name between dots).

    Raises:
        UsageError: unknown family, or a pattern that matches nothing; the message lists the
            nearest names.
    """
    patterns = [sites] if isinstance(sites, str) else list(sites)
    names = [name for name, _ in model.named_modules() if name]
    found: set[str] = set()
    for pattern in patterns:
        if pattern in ("mixers", "blocks"):
            pattern = _preset(model, pattern)
        matching = [name for name in names if _matches(name, pattern)]
        if not matching:
            close = get_close_matches(pattern.replace("*", "0"), names, n=3, cutoff=0.5)
            hint = f"; the nearest are {', '.join(close)}" if close else ""
            raise UsageError(f"no module matches {pattern!r}{hint}")
        found.update(matching)
    return [name for name in names if name in found]


def find_stages(model: nn.Module) -> list[str]:
    """Returns the modules that timm names as a network's stages, else its stages or blocks.

    Raises:
        UserError: the network has none under a known name.
    """
    known = [name for name, _ in model.named_modules()]
    rows = getattr(model, "feature_info", None)
    told = [str(row.get("module")) for row in rows or () if isinstance(row, dict)]
    if found := [name for name in dict.fromkeys(told) if name in known]:
        return found
    for pattern in _STAGES:
        if found := [name for name in known if _matches(name, pattern)]:
            return found
    raise UserError(f"{type(model).__name__} has no stages or blocks under a known name")


def family_of(model: nn.Module) -> Family | None:
    """Returns a network's family, or None if it is unknown."""
    known = (FAMILIES.get(parent.__name__) for parent in type(model).__mro__)
    return next((family for family in known if family is not None), None)


def _preset(model: nn.Module, kind: str) -> str:
    family = family_of(model)
    if family is None:
        raise UsageError(
            f"{type(model).__name__} has no preset for {kind!r}; give patterns of module names "
            f"(presets: {', '.join(FAMILIES)})"
        )
    return family.mixers if kind == "mixers" else family.blocks


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def to_maps(
    output: Any,
    image_size: tuple[int, int],
    layout: str = "auto",
    prefix_tokens: int = 0,
) -> Tensor:
    """Returns a module's output as maps (B, C, H, W), as a view if possible.

    Args:
        output: Maps (B, C, H, W) or (B, H, W, C), tokens (B, N, C), or a tuple or list that starts
            with one of these.
        image_size: H and W of the images. Maps have the same aspect ratio, which tells the layout.
        layout: "nchw", "nhwc", "tokens", or "auto", which fails if two layouts are possible.
        prefix_tokens: Number of class and register tokens at the start; they are dropped.

    Raises:
        ValueError: the output is not a map, or its layout is ambiguous.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}, allowed: {', '.join(LAYOUTS)}")
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"no map: {what}, expected (B, C, H, W), (B, H, W, C) or (B, N, C)")
    if output.ndim == 3:
        return _tokens_to_maps(output, image_size, prefix_tokens)
    if layout == "auto":
        layout = _layout_of(output, image_size)
    return output.permute(0, 3, 1, 2) if layout == "nhwc" else output


def _layout_of(output: Tensor, image_size: tuple[int, int]) -> str:
    first = _distortion(output.shape[2], output.shape[3], image_size)
    last = _distortion(output.shape[1], output.shape[2], image_size)
    if isclose(first, last) or min(first, last) > 0.7:
        why = "could be NCHW and NHWC" if first < 0.7 else "has the images' proportions in no way"
        raise ValueError(f"{tuple(output.shape)} {why}; give the layout")
    return "nchw" if first < last else "nhwc"


def _distortion(height: int, width: int, image_size: tuple[int, int]) -> float:
    """Returns how far a map's aspect ratio is from the images', as the log of a factor."""
    return abs(log(height / width) - log(image_size[0] / image_size[1]))


def _tokens_to_maps(tokens: Tensor, image_size: tuple[int, int], prefix: int) -> Tensor:
    count = tokens.shape[1] - prefix
    ratio = image_size[0] / image_size[1]
    heights = [h for h in range(1, count + 1) if count % h == 0]
    best = min(heights, key=lambda h: abs(h / (count // h) - ratio), default=0)
    if not best or not (isclose(best / (count // best), ratio, rel_tol=0.25)):
        raise ValueError(
            f"no map: {tokens.shape[1]} tokens less {prefix} do not fill a grid of the images' "
            f"proportions {image_size[0]}x{image_size[1]}; give prefix_tokens"
        )
    return tokens[:, prefix:].transpose(1, 2).unflatten(2, (best, count // best))


def _first_that_fits(
    output: Any, image_size: tuple[int, int], layouts: tuple[str, str], prefix: int
) -> Tensor:
    """Converts an output to maps by the first layout or, if that is ambiguous, the second."""
    try:
        return to_maps(output, image_size, layouts[0], prefix)
    except ValueError:
        return to_maps(output, image_size, layouts[1], prefix)


def on_maps(
    module: Callable[[Tensor], Any],
    given: Tensor,
    image_size: tuple[int, int],
    layouts: tuple[str, str] = ("auto", "auto"),
    prefix_tokens: int = 0,
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Turns a module of any layout into a function of NCHW maps.

    Args:
        module: Module whose input is maps or tokens.
        given: Its input for one image: (1, C, H, W), (1, H, W, C) or (1, N, C).
        image_size: See `to_maps`.
        layouts: Two layouts, see `to_maps`; the second applies if the first is ambiguous.
        prefix_tokens: See `to_maps`. The function reuses these tokens from `given`.

    Returns:
        A function from maps (B, C, H, W) to maps, and `given` as maps.

    Raises:
        ValueError: the module's input is not a map.
    """
    point = _first_that_fits(given, image_size, layouts, prefix_tokens)

    def run(maps: Tensor) -> Tensor:
        if given.ndim == 3:
            tokens = maps.flatten(2).mT  # B HW C
            maps = torch.cat([given[:, :prefix_tokens].expand(len(maps), -1, -1), tokens], 1)
        elif point is not given:
            maps = maps.permute(0, 2, 3, 1)  # B H W C
        return _first_that_fits(module(maps), image_size, layouts, prefix_tokens)

    return run, point


@contextmanager
def hooked(
    model: nn.Module,
    names: Sequence[str],
    sink: Sink,
    layout: str = "auto",
    prefix_tokens: int | None = None,
) -> Iterator[None]:
    """Returns a context that passes every output of the named modules to `sink(name, maps)`.

    Args:
        model: Any network whose first argument is images (B, C, H, W).
        names: Names of modules.
        sink: Function of a name and maps (B, C, H, W).
        layout: See `to_maps`; "auto" falls back to the layout of a known family.
        prefix_tokens: See `to_maps`; None means the model's `num_prefix_tokens`, or 0.
    """
    family = family_of(model)
    fallback = family.layout if family is not None and layout == "auto" else layout
    prefix = getattr(model, "num_prefix_tokens", 0) if prefix_tokens is None else prefix_tokens
    size: list[tuple[int, int]] = []

    def note_size(_: nn.Module, given: tuple[Any, ...]) -> None:
        size[:] = [tuple(given[0].shape[-2:])]

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            try:
                maps = _first_that_fits(output, size[0], (layout, fallback), prefix)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            sink(name, maps)

        return hook

    handles = [model.register_forward_pre_hook(note_size)]
    try:
        for name in names:
            handles.append(model.get_submodule(name).register_forward_hook(watch(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def capture(
    model: nn.Module,
    images: Tensor,
    sites: str | Sequence[str] = "mixers",
    layout: str = "auto",
    prefix_tokens: int | None = None,
) -> dict[str, Tensor]:
    """Runs a batch and returns the modules' outputs as maps (B, C, H, W), by name.

    For a data set use `stream`, which needs constant memory.

    Args:
        model: Any network; its training or evaluation mode is kept.
        images: Images (B, C, H, W).
        sites: See `find_modules`.
        layout: See `to_maps`.
        prefix_tokens: See `hooked`.

    Raises:
        UsageError: a pattern matches nothing.
        ValueError: an output is not a map.
    """
    found: dict[str, Tensor] = {}
    names = find_modules(model, sites)
    with hooked(model, names, found.__setitem__, layout, prefix_tokens):
        model(images)
    return {name: found[name] for name in names if name in found}


@torch.no_grad()
def stream(
    model: nn.Module,
    batches: Iterable[Tensor],
    sink: Sink,
    sites: str | Sequence[str] = "mixers",
    layout: str = "auto",
    prefix_tokens: int | None = None,
) -> int:
    """Runs batches of images and passes the modules' maps to a sink.

    Args:
        model: Any network.
        batches: Batches of images (B, C, H, W), on the model's device.
        sink: Function of a module's name and maps (B, C, H, W), such as `SpectrumStatistics`.
        sites: See `find_modules`.
        layout: See `to_maps`.
        prefix_tokens: See `hooked`.

    Returns:
        The number of images.

    Raises:
        UsageError: a pattern matches nothing.
        ValueError: an output is not a map.
    """
    count = 0
    with hooked(model, find_modules(model, sites), sink, layout, prefix_tokens):
        for images in progress(batches, "analyse"):
            model(images)
            count += len(images)
    return count
