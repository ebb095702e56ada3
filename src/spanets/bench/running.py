"""Settings of a timed run, and functions that run one batch."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.utils import reparameterize_model
from torch import Tensor, nn

from spanets.bench.timing import Step
from spanets.deploy.export import export_model
from spanets_runtime.errors import UsageError, UserError, first_line
from spanets_runtime.onnx import images_input, open_session

BACKENDS = ("eager", "compile", "onnx")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """Settings for all models of a comparison; exported files keep their own number format.

    Attributes:
        dtype: "float32", "bfloat16" or "float16"; training uses autocast for the latter two.
        backend: "eager", "compile" or "onnx" (onnxruntime).
        train: Whether to time training steps (forward, backward, SGD) instead of inference.
        device: torch device: "cpu", "cuda", "cuda:1", …
        channels_last: Whether weights and images use the channels-last memory layout.
    """

    dtype: str = "float32"
    backend: str = "eager"
    train: bool = False
    device: str = "cpu"
    channels_last: bool = False

    def check(self) -> None:
        """Raises UsageError for unknown values or values that cannot be combined."""
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype is {self.dtype!r}, allowed: {', '.join(DTYPES)}")
        if self.backend not in BACKENDS:
            raise UsageError(f"--backend is {self.backend!r}, allowed: {', '.join(BACKENDS)}")
        if self.backend == "onnx" and (self.train or self.device != "cpu"):
            raise UsageError(
                "--backend onnx runs inference on the CPU; leave out --train and --device"
            )
        if self.backend == "onnx" and self.channels_last:
            raise UsageError("--backend onnx chooses the memory layout; leave out --channels-last")
        if self.backend == "onnx" and self.dtype == "bfloat16":
            raise UsageError("--backend onnx supports --dtype float32 or float16, not bfloat16")
        if self.device.split(":")[0] not in ("cpu", "cuda"):
            raise UsageError(f"--device is {self.device!r}, allowed: cpu, cuda, cuda:1, …")
        try:
            torch.empty(1, device=self.device)
        # The type and message of torch's error depend on its build.
        except (RuntimeError, AssertionError) as error:
            raise UsageError(
                f"--device {self.device!r} cannot be used here: {first_line(error)}"
            ) from error


def make_step(model: nn.Module, setting: Setting, batch: int, size: int) -> tuple[Step, int]:
    """Returns a callable that runs one batch, and the size of its weights in bytes.

    Raises:
        UserError: the model cannot be exported, or does not support the size.
    """
    channels = getattr(model, "in_chans", 3)
    images = torch.randn(batch, channels, size, size)
    if setting.backend == "onnx":
        return _onnx_step(model, images, setting.dtype), _bytes(model, DTYPES[setting.dtype])
    images = _place(images, setting)
    if setting.train:
        network = _place(model.train(), setting)
        return _training_step(network, images, setting), _bytes(network)
    network = reparameterize_model(model.eval()).to(DTYPES[setting.dtype])
    network = _place(network, setting)
    return _inference_step(network, images.to(DTYPES[setting.dtype]), setting), _bytes(network)


def make_exported_step(path: Path, batch: int, size: int) -> Step:
    """Returns a callable that runs one batch through an ONNX file of float32 images.

    Raises:
        UsageError: the file has other fixed sizes.
        UserError: no onnxruntime, or inputs other than float32 images.
    """
    session = open_session(path, torch.get_num_threads())
    given = images_input(session, path)
    if given.type != "tensor(float)":
        raise UserError(f"{path}: its input is {given.type}, but bench times float32 images only")
    channels = given.shape[1] if isinstance(given.shape[1], int) else 3
    shape = (batch, channels, size, size)
    for fixed, wanted in zip(given.shape, shape, strict=True):
        if isinstance(fixed, int) and fixed != wanted:
            made = "x".join(str(side) if isinstance(side, int) else "any" for side in given.shape)
            asked = "x".join(map(str, shape))
            raise UsageError(
                f"{path}: its input is {made}, not {asked}; set --batch and --size to match"
            )
    feed = {given.name: torch.randn(shape).numpy()}
    return lambda: session.run(None, feed)


def _place(what: Any, setting: Setting) -> Any:
    """Moves a network or images to the device, in the memory layout of the setting."""
    what = what.to(setting.device)
    return what.to(memory_format=torch.channels_last) if setting.channels_last else what


def _bytes(model: nn.Module, dtype: torch.dtype | None = None) -> int:
    values = [*model.parameters(), *model.buffers()]
    return sum(p.numel() * (dtype or p.dtype).itemsize for p in values)


def _inference_step(model: nn.Module, images: Tensor, setting: Setting) -> Step:
    network: Any = torch.compile(model, dynamic=False) if setting.backend == "compile" else model

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def _training_step(model: nn.Module, images: Tensor, setting: Setting) -> Step:
    network: Any = torch.compile(model, dynamic=False) if setting.backend == "compile" else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    half = setting.dtype != "float32"

    def run() -> None:
        with torch.autocast(images.device.type, DTYPES[setting.dtype], enabled=half):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def _onnx_step(model: nn.Module, images: Tensor, dtype: str) -> Step:
    batch, _, size, _ = images.shape
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export_model(model, path, size, dtype, dynamic=False, batch=batch, allow_fft=True)
        session = open_session(path.read_bytes(), torch.get_num_threads())
    feed = {"images": images.numpy()}
    return lambda: session.run(None, feed)
