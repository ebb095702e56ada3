"""Traces models with torch.export, and turns them into ONNX graphs and stored programs."""

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from spanets.deploy.constants import fold_constants
from spanets.deploy.onnx_graph import drop_neutral_nodes, forget_origin, name_sizes
from spanets_runtime.errors import UserError, first_line
from spanets_runtime.onnx import METADATA, MIN_FREE_SIDE

# ONNX operators that runtimes reject or run very slowly.
UNWANTED = ("DFT", "STFT", "If", "Loop", "SequenceAt")

DEFAULT_OPSET = 20


@dataclass(frozen=True)
class Traceable:
    """A model in the form in which a target writes it.

    Attributes:
        model: Network from images (B, C, H, W) to logits or a list of maps, on the CPU, with linear
            operations folded.
        images: Images to trace with.
        outputs: Names of the outputs, each with the shape for `images`.
        dynamic: Whether batch size, height and width are free.
        step: The network's sides are multiples of this.
        opset: ONNX opset.
        metadata: Plain values to store.
        calibration: Preprocessed images (C, H, W) to quantize with; empty for none.
        allow_fft: Whether to write graphs with Fourier transforms.
    """

    model: nn.Module
    images: Tensor
    outputs: dict[str, list[int]]
    dynamic: bool
    step: int = 1
    opset: int = DEFAULT_OPSET
    metadata: dict[str, Any] = field(default_factory=dict)
    calibration: Sequence[NDArray[np.float32]] = ()
    allow_fft: bool = False

    @cached_property
    def calibration_batches(self) -> list[NDArray[np.float32]]:
        """The calibration images in batches (B, C, H, W) that the file takes.

        Free batch sizes take one image, because sides may differ. The last image fills up the last
        batch.
        """
        size = 1 if self.dynamic else len(self.images)
        images = list(self.calibration)
        images += images[-1:] * (-len(images) % size)
        return [np.stack(images[i : i + size]) for i in range(0, len(images), size)]

    @cached_property
    def program(self) -> ExportedProgram:
        """The program of torch.export."""
        return _trace(self.model, self.images, self.dynamic, self.step)

    @cached_property
    def constant_program(self) -> ExportedProgram:
        """The program with what depends only on the size as constants; sizes must be fixed."""
        return fold_constants(self.program, self.images)

    @property
    def shape(self) -> list[int | str]:
        """The shape of the images; a free size is a text."""
        if self.dynamic:
            return ["batch", self.images.shape[1], "height", "width"]
        return list(self.images.shape)


class _Cast(nn.Module):
    """A model that computes in another dtype, with float32 inputs and outputs."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model.to(dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        outputs = self.model(images.to(self.dtype))
        if isinstance(outputs, Tensor):
            return outputs.float()
        return [output.float() for output in outputs]


def on_cpu(model: nn.Module) -> nn.Module:
    """Returns a copy on the CPU, in evaluation mode, whose weights may be changed."""
    return copy.deepcopy(model).cpu().eval().requires_grad_(False)


def inference_form(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Returns a copy with linear operations folded, in the given dtype."""
    folded = reparameterize_model(model)
    return folded if dtype == torch.float32 else _Cast(folded, dtype)


def _trace(model: nn.Module, images: Tensor, dynamic: bool, step: int) -> ExportedProgram:
    if step == 1:
        sides = [Dim(name, min=MIN_FREE_SIDE) for name in ("height", "width")]
    else:
        sides = [step * Dim(f"{name}_steps", min=2) for name in ("height", "width")]
    free = {0: Dim("batch"), 2: sides[0], 3: sides[1]}
    shapes = (free,) if dynamic else None
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(model, (images,), dynamic_shapes=shapes, strict=False)
    # The exporter raises any kind of exception, with pages of text.
    except Exception as error:
        hint = "; try without free sizes (--static)" if dynamic else ""
        said = first_line(error).split("! For more information")[0]  # a reference to torch's logs
        raise UserError(f"torch.export cannot trace the model: {said}{hint}") from error


def to_pt2(given: Traceable) -> bytes:
    """Returns a stored program of torch.export."""
    buffer = io.BytesIO()
    with quiet():
        extra = {"spanets.json": json.dumps(given.metadata)}
        torch.export.save(given.program, buffer, extra_files=extra)
    return buffer.getvalue()


def to_onnx(given: Traceable) -> bytes:
    """Returns an ONNX graph.

    Raises:
        UserError: it has operators that runtimes reject.
    """
    import onnx

    with quiet():
        converted = torch.onnx.export(
            given.program,
            input_names=["images"],
            output_names=list(given.outputs),
            opset_version=given.opset,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert converted is not None
    graph = converted.model_proto
    found = {node.op_type for node in graph.graph.node} & set(UNWANTED)
    if found and not given.allow_fft:
        raise UserError(
            f"the graph has {', '.join(sorted(found))}, which runtimes reject or run very slowly; "
            "models of this package have none unless spectral_method is 'fft'"
        )
    name_sizes(graph.graph)
    forget_origin(graph)
    drop_neutral_nodes(graph)
    onnx.helper.set_model_props(graph, {METADATA: json.dumps(given.metadata)})
    onnx.checker.check_model(graph)
    return graph.SerializeToString()


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the exporters' logs and warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
