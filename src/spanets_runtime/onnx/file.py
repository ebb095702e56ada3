"""Opens and runs ONNX files with onnxruntime, and reads their metadata.

`engines` opens the files of other runtimes.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.errors import UserError, first_line, require
from spanets_runtime.machine import adds_bytes_in_16_bits

METADATA = "spanets"
"""Key of our metadata, a JSON string, in the ONNX file's metadata properties."""

MIN_FREE_SIDE = 64
"""Smallest height and width for which the exporter verifies dynamic sizes."""

SUFFIXES = (".onnx", ".xml", ".pte", ".mlpackage", ".tflite")
"""Suffixes of exported files that can be predicted with."""

_FREE = (".onnx", ".xml")
"""Suffixes of formats in which sizes can be free."""


def is_exported(path: str | Path) -> bool:
    """Returns whether a word names an exported file, rather than a checkpoint or a model."""
    return str(path).lower().endswith(SUFFIXES)


def can_be_free(path: str | Path) -> bool:
    """Whether the format of an exported file allows free sizes."""
    return str(path).lower().endswith(_FREE)


@dataclass(frozen=True)
class Output:
    """An output of an exported file: its name, and its shape, where a free size is a text."""

    name: str
    shape: list[int | str]


def images_input(session: Any, path: str | Path) -> Any:
    """Returns the only input of an open model, with `name`, `shape` and `type`.

    Raises:
        UserError: the input is not a batch of images (batch, channels, height, width).
    """
    given, *others = session.get_inputs()
    if others or len(given.shape) != 4:
        raise UserError(f"{path}: its input is not one batch of images (batch, channels, H, W)")
    return given


class ExportedFile:
    """An open exported model with its metadata, of any runtime.

    Args:
        path: Path of a file that `spanets export` wrote.
        metadata: The metadata that `spanets export` wrote.
        shape: Batch, channels, height and width of the input; a dynamic one is a string.
        outputs: The outputs, each with `name` and `shape`.

    Attributes:
        path, metadata, shape, outputs: See above.
        task: Task of the exported checkpoint, or None for a model without a checkpoint.
        preprocessing: Values of the preprocessing.
    """

    def __init__(
        self,
        path: str | Path,
        metadata: dict[str, Any],
        shape: list[int | str],
        outputs: Sequence[Output],
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.shape = shape
        self.outputs = outputs
        self.preprocessing = metadata["preprocessing"]
        self.task = metadata.get("task")

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Returns the outputs for preprocessed images (B, C, H, W).

        Raises:
            UserError: the file takes images of another size, or the runtime cannot compute the
                graph.
        """
        raise NotImplementedError

    def check_images(self, images: NDArray[Any]) -> None:
        """Raises a UserError for images of another shape than the file takes."""
        sides = zip(self.shape, images.shape, strict=False)
        is_fit = all(not isinstance(own, int) or own == given for own, given in sides)
        if images.ndim != len(self.shape) or not is_fit:
            made, given = ("x".join(map(str, shape)) for shape in (self.shape, images.shape))
            raise UserError(f"{self.path}: takes inputs of {made}, not {given}")

    def check_outputs(self, names: list[str], rank: int) -> None:
        """Raises UserError if the outputs have other names or another number of dimensions."""
        outputs = self.outputs
        if [output.name for output in outputs] != names or len(outputs[0].shape) != rank:
            raise UserError(
                f"{self.path}: outputs feature maps, not classes; export it without --features-only"
            )

    def classes(self, axis: int) -> list[str]:
        """Returns the class names for an axis of the first output.

        Raises:
            UserError: the file's class names are missing or damaged.
        """
        count, names = self.outputs[0].shape[axis], self.metadata.get("classes")
        if not isinstance(count, int) or not isinstance(names, list | None):
            raise UserError(f"{self.path}: damaged, its classes are unknown; export it again")
        classes = [str(name) for name in names or range(count)]
        if len(classes) != count:
            raise UserError(f"{self.path}: damaged, names {len(classes)} of {count} classes")
        return classes


class OnnxFile(ExportedFile):
    """An open ONNX file with its metadata.

    Args:
        path: Path of a file that `spanets export` wrote.
        threads: Threads of one operator; None means onnxruntime's choice.

    Raises:
        UserError: onnxruntime is missing, or the file is damaged or not from `spanets export`.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.session = open_session(path, threads)
        with _plain_errors(path):  # a name in the file may not be valid text
            metadata = read_metadata(self.session, path)
            outputs = self.session.get_outputs()
            given = images_input(self.session, path)
        super().__init__(path, metadata, given.shape, outputs)
        self.input = given.name

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Returns the outputs for preprocessed images; see `ExportedFile`."""
        self.check_images(images)
        sides = "x".join(map(str, images.shape))
        with _plain_errors(self.path, f"onnxruntime cannot run it on images of {sides}"):
            return self.session.run(None, {self.input: images})


def open_session(model: str | Path | bytes, threads: int | None = None) -> Any:
    """Opens an ONNX file, or its content, for the CPU.

    Raises:
        UserError: onnxruntime is missing, or the file is not ONNX.
    """
    onnxruntime = require("onnxruntime", "export")
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # warnings only concern optimizations; errors are raised anyway
    # It makes int8 exact. Only where needed, because processors with AMX get slower by it.
    if adds_bytes_in_16_bits():
        options.add_session_config_entry("session.x64quantprecision", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    name = "the exported model" if isinstance(model, bytes) else str(model)
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise UserError(f"{name}: {'is a folder' if Path(model).is_dir() else 'no such file'}")
    with _plain_errors(name):
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else name,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # it would retry with the same provider and print to standard output
        )


@contextmanager
def _plain_errors(
    name: str | Path, problem: str = "not an ONNX model that onnxruntime can read"
) -> Iterator[None]:
    """Turns every error of onnxruntime into a `UserError` with one line."""
    try:
        yield
    except UserError:
        raise
    # onnxruntime's errors have no common base class.
    except Exception as error:
        raise UserError(f"{name}: {problem} ({first_line(error)})") from error


def read_metadata(session: Any, path: str | Path) -> dict[str, Any]:
    """Returns the metadata that `spanets export` wrote into a file.

    Raises:
        UserError: the metadata are missing or damaged.
    """
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    if text is None:
        raise UserError(
            f"{path}: has no metadata on preprocessing and classes; give a file that "
            "`spanets export` wrote"
        )
    return parse_metadata(text, path)


def parse_metadata(text: str, path: str | Path) -> dict[str, Any]:
    """Returns metadata that `spanets export` wrote as JSON.

    Raises:
        UserError: they are damaged.
    """
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("preprocessing"), dict):
        raise UserError(f"{path}: its metadata are damaged; export it again")
    return metadata
