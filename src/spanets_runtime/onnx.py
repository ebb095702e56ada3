"""Models that `spanets export` wrote as ONNX, run by onnxruntime."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.errors import UserError, first_line, require
from spanets_runtime.listing import ImageSource
from spanets_runtime.predict import Prediction, predict_images
from spanets_runtime.preprocessing import Preprocessing

METADATA = "spanets"
"""Key of the metadata, one JSON text, in the file's properties."""


MIN_FREE_SIDE = 64
"""Heights and widths that are free are proved from here up by the exporter."""


def is_exported(path: str | Path) -> bool:
    """Tells an ONNX file from a checkpoint or a model's name."""
    return str(path).lower().endswith(".onnx")


def images_input(session: Any, path: str | Path) -> Any:
    """Returns the only input of an open file, with `name`, `shape` and `type`.

    Raises:
        UserError: it takes something else than images (batch, channels, height, width).
    """
    given, *others = session.get_inputs()
    if others or len(given.shape) != 4:
        raise UserError(f"{path}: takes something else than images (batch, channels, H, W)")
    return given


class OnnxFile:
    """An exported model that is open, and what is written in it.

    Args:
        path: Written by `spanets export`.
        threads: Of one operator; None leaves it to onnxruntime.

    Attributes:
        task: What a checkpoint was trained for, or None of an exported backbone.
        preprocessing: Plain values.
        shape: Of the input: batch, channels, height and width, a text for one that is free.

    Raises:
        UserError: no onnxruntime, or a file that is damaged or of another make.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.path = path
        self.session = open_session(path, threads)
        with _plain_errors(path):  # a name in the file may be no text
            self.told = read_metadata(self.session, path)
            self.outputs = self.session.get_outputs()
            given = images_input(self.session, path)
        self.preprocessing = self.told["preprocessing"]
        self.task = self.told.get("task")
        self.input, self.shape = given.name, given.shape

    def check_outputs(self, names: list[str], rank: int) -> None:
        """Raises UserError if the outputs have other names, or other numbers of dimensions."""
        outputs = self.outputs
        if [output.name for output in outputs] != names or len(outputs[0].shape) != rank:
            raise UserError(
                f"{self.path}: gives maps, not classes; export it without --features-only"
            )

    def classes(self, axis: int) -> list[str]:
        """Returns the names of the classes, which lie along this axis of the first output.

        Raises:
            UserError: the file does not tell them.
        """
        count, names = self.outputs[0].shape[axis], self.told.get("classes")
        if not isinstance(count, int) or not isinstance(names, list | None):
            raise UserError(f"{self.path}: damaged, does not tell its classes; export it again")
        classes = [str(name) for name in names or range(count)]
        if len(classes) != count:
            raise UserError(f"{self.path}: damaged, names {len(classes)} of {count} classes")
        return classes

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Returns the outputs for preprocessed images (B, C, H, W).

        Raises:
            UserError: the graph cannot be computed.
        """
        with _plain_errors(self.path):
            return self.session.run(None, {self.input: images})


class OnnxPredictor:
    """An exported classifier with its preprocessing and class names.

    Args:
        source: A file that `spanets export` wrote, or one that is open.
        threads: Of one operator; None leaves it to onnxruntime.

    Raises:
        UserError: no onnxruntime, or a file that is damaged, of another make or no classifier.
    """

    def __init__(self, source: str | Path | OnnxFile, threads: int | None = None) -> None:
        self.file = file = source if isinstance(source, OnnxFile) else OnnxFile(source, threads)
        file.check_outputs(["logits"], rank=2)
        self.classes = file.classes(axis=-1)
        self.preprocess = Preprocessing.parse(file.preprocessing, file.path)
        _check_size(file.shape, self.preprocess.size, file.path)

    def __call__(self, images: Iterable[ImageSource], top: int = 5) -> Iterator[Prediction]:
        """Yields a prediction for each image, as `predict_images` does.

        Args:
            images: Paths.
            top: Classes for each image; all of them where there are fewer.
        """
        return predict_images(images, self._classify, self.classes, top)

    def _classify(self, image: Image.Image) -> NDArray[Any]:
        logits = self.file.run(self.preprocess(image)[None])[0]
        if np.shape(logits) != (1, len(self.classes)):
            raise UserError(
                f"{self.file.path}: damaged, gives {np.shape(logits)} for an image, not "
                f"(1, {len(self.classes)}); export it again"
            )
        return logits[0]


def open_session(model: str | Path | bytes, threads: int | None = None) -> Any:
    """Opens an ONNX file, or its content, for the CPU.

    Raises:
        UserError: no onnxruntime, or no ONNX file.
    """
    onnxruntime = require("onnxruntime", "export")
    onnxruntime.disable_telemetry_events()  # nothing is sent that was not asked for
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its warnings concern its optimizations, its errors are raised
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
            enable_fallback=0,  # to the same provider, said on standard output
        )


@contextmanager
def _plain_errors(name: str | Path) -> Iterator[None]:
    """Says in one line what onnxruntime finds wrong with a model.

    Raises:
        UserError: whatever it raised.
    """
    try:
        yield
    except UserError:
        raise
    # Its errors have no base class of their own.
    except Exception as error:
        raise UserError(
            f"{name}: no ONNX model that onnxruntime can read ({first_line(error)})"
        ) from error


def read_metadata(session: Any, path: str | Path) -> dict[str, Any]:
    """Returns what `spanets export` wrote beside the graph.

    Raises:
        UserError: the file has none, or it is damaged.
    """
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    if text is None:
        raise UserError(
            f"{path}: says nothing of preprocessing and classes; give a file that "
            "`spanets export` wrote"
        )
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("preprocessing"), dict):
        raise UserError(f"{path}: its metadata are damaged; export it again")
    return told


def _check_size(shape: list[int | str], size: int, path: str | Path) -> None:
    """Raises UserError if a fixed shape is not that of one preprocessed image."""
    expected = (1, 3, size, size)
    if any(isinstance(n, int) and n != m for n, m in zip(shape, expected, strict=True)):
        made, given = ("x".join(map(str, numbers)) for numbers in (shape, expected))
        raise UserError(
            f"{path}: is made for {made}, its preprocessing gives {given}; export it with "
            f"--size {size}, or without --static"
        )
