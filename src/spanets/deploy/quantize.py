"""Exported ONNX graphs in 8-bit integers: static quantisation by onnxruntime."""

import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets.sources import Source
from spanets.tasks import load_task
from spanets_runtime.errors import UserError, require
from spanets_runtime.images import ImageError, describe_error, describe_unreadable
from spanets_runtime.listing import images_below
from spanets_runtime.preprocessing import reader_of
from spanets_runtime.progress import progress

# Operators with weights; in a SPANet these are convolutions, except for the classifier. Spectral
# filters and attention stay in float32: they do little work, less than the conversions would cost,
# and their values have a wide range. Some convolutions stay in float32, too; see `_kept`.
QUANTIZED = ["Conv", "Gemm"]

# A product of a map and one of these has no wider range than the map.
# Reciprocals come from decomposed norms.
BOUNDED = {"Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Erf", "Reciprocal"}

# Operators that keep a map's values and change at most their order.
_SHAPING = {"Reshape", "Unsqueeze", "Squeeze", "Expand", "Transpose", "Identity", "Cast"}
_BY_CONSTANTS = {"Add", "Sub", "Mul", "Div"}


Transform = Callable[[Any], NDArray[np.float32]]


def calibration_transform(
    source: Source, preprocessing: Mapping[str, Any], dynamic: bool = True
) -> Transform:
    """Returns the transform from an image to a network input; see `Task.make_calibration`.

    Args:
        source: Source of the export.
        preprocessing: Preprocessing in the metadata of `export.load_source`.
        dynamic: Whether the export has free sizes.

    Raises:
        UsageError: a task or sizes that do not support int8.
        UserError: damaged preprocessing.
    """
    info = replace(source.info, preprocessing=dict(preprocessing))
    return load_task(info.task).make_calibration(info, source.word, dynamic)


def calibration_images(
    folder: str | Path, preprocess: Transform, count: int = 128, seed: int = 0
) -> list[NDArray[np.float32]]:
    """Draws images at random from a folder and its subfolders, and preprocesses them.

    It skips unreadable images and other files, and counts them on standard error.

    Args:
        folder: Folder of images, searched at any depth.
        preprocess: Transform of the model; see `calibration_transform`.
        count: Largest number of images.
        seed: Random seed of the draw.

    Returns:
        Arrays (3, H, W).

    Raises:
        UserError: no such folder, or no readable images in it, or none of the first band.
    """
    found = images_below(folder)
    for note in found.notes():
        print(note, file=sys.stderr)
    choose = getattr(preprocess, "choose", list)  # leaves out files of further bands
    paths = list(choose(found.images))
    if not paths:
        raise UserError(
            f"{folder}: a folder without images of the first band; each image needs its file, "
            "beside those of the other bands"
        )
    random.Random(seed).shuffle(paths)
    read = reader_of(preprocess)
    images: list[NDArray[np.float32]] = []
    unreadable: list[str] = []
    for path in paths:
        if len(images) == count:
            break
        try:
            images.append(preprocess(read(path)))
        except ImageError as error:
            unreadable.append(describe_error(path, error))
    if not images:
        raise UserError(f"{folder}: a folder without readable images, such as {unreadable[0]}")
    if unreadable:
        seen = len(images) + len(unreadable)
        print(describe_unreadable(unreadable, seen), file=sys.stderr)
    return images


def quantize(content: bytes, batches: Sequence[NDArray[np.float32]]) -> bytes:
    """Returns the graph with linear layers and most dense convolutions in int8; see `_kept`.

    Weights are signed, with one scale per output channel. Activations are unsigned, with ranges
    measured on the images.

    Args:
        content: ONNX file with one float32 input `images` (B, 3, H, W).
        batches: Calibration images, (B, 3, H, W) each.

    Raises:
        UserError: onnxruntime is not installed.
    """
    onnx = require("onnx", "export")
    tools = require("onnxruntime.quantization", "export")
    shape_inference = require("onnxruntime.quantization.shape_inference", "export")
    with tempfile.TemporaryDirectory() as folder:
        given, prepared, written = (Path(folder, f"{i}.onnx") for i in range(3))
        given.write_bytes(content)
        shape_inference.quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)
        tools.quantize_static(
            str(prepared),
            str(written),
            _reader(tools.CalibrationDataReader, batches),
            op_types_to_quantize=QUANTIZED,
            nodes_to_exclude=_kept(onnx.load(str(prepared)).graph),
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            # Logits in 256 steps produce ties, which cost more accuracy than any other layer.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )
        result = onnx.load(str(written))
    original = onnx.load_from_string(content)
    onnx.helper.set_model_props(result, {p.key: p.value for p in original.metadata_props})
    return result.SerializeToString()


def _kept(graph: Any) -> list[str]:
    """Returns the names of the convolutions that stay in float32.

    - Grouped ones: onnxruntime runs depth-wise convolutions no faster in int8, and the conversions
      cost extra.
    - Those with strides (in SPANets the stem and downsampling). Their inputs are images and sums of
      all residuals, where a few values are a hundred times as large as the rest.
    - Those on a product of two maps, such as a map and its context: its range is as wide.
    - The last layer, if it is a convolution, as in a segmenter: 256 steps would produce ties.
    """
    producers = {output: node for node in graph.node for output in node.output}
    weights = {value.name for value in graph.initializer}
    layers = [node for node in graph.node if node.op_type in QUANTIZED]
    assert all(node.name for node in layers), "an empty name would exclude all nameless nodes"

    def maker(name: str) -> Any:
        """Returns the node that computes a map, before reshaping, constant shifts or scales."""
        node = producers.get(name)
        if node is None or node.op_type not in _SHAPING | _BY_CONSTANTS:
            return node
        maps = [given for given in node.input if given not in weights]
        alone = node.op_type in _SHAPING or len(maps) == 1
        return maker(maps[0]) if maps and alone else node

    def is_product(name: str) -> bool:
        node = maker(name)
        if node is None or node.op_type != "Mul" or node.input[0] == node.input[1]:
            return False
        makers = [maker(factor) for factor in node.input]
        return not any(node is not None and node.op_type in BOUNDED for node in makers)

    def stays(conv: Any) -> bool:
        numbers = {attribute.name: attribute for attribute in conv.attribute}
        grouped = "group" in numbers and numbers["group"].i > 1
        strided = "strides" in numbers and max(numbers["strides"].ints) > 1
        return grouped or strided or is_product(conv.input[0]) or conv is layers[-1]

    return [node.name for node in layers if node.op_type == "Conv" and stays(node)]


def _reader(base: Any, batches: Sequence[NDArray[np.float32]]) -> Any:
    """Hands the batches to onnxruntime one by one, with a progress bar."""

    class Reader(base):
        def __init__(self) -> None:
            self.batches: Iterator[NDArray[np.float32]] = iter(progress(batches, "calibrate"))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            images = next(self.batches, None)
            return None if images is None else {"images": images}

    return Reader()
