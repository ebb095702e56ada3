"""The runtimes of exported files other than ONNX, and opening a file by its suffix.

Metadata and shapes are in a JSON file beside the exported one: cells.pte and cells.pte.json.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spanets_runtime.errors import UserError, first_line, require
from spanets_runtime.onnx.file import ExportedFile, OnnxFile, Output, parse_metadata
from spanets_runtime.reading import read_text_file

Run = Callable[[NDArray[np.float32]], list[NDArray[Any]]]
"""Function from images (B, C, H, W) to the outputs."""

_IMAGES, _OUTPUTS = "images", "outputs"
_MOST_METADATA = 2**24


@dataclass(frozen=True)
class Engine:
    """A runtime of exported files.

    Attributes:
        name: Its name for messages.
        module: Module to import.
        extra: The extra of this package that installs it.
        open: Function from the module, a path and a number of threads (None means the runtime's
            choice) to a function that runs the file.
    """

    name: str
    module: str
    extra: str
    open: Callable[[Any, str, int | None], Run]


def _open_openvino(openvino: Any, path: str, threads: int | None) -> Run:
    # By default it rounds to bfloat16 on processors that have it.
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(path, "CPU", options)

    def run(images: NDArray[np.float32]) -> list[NDArray[Any]]:
        found = compiled(images)
        return [np.array(found[output]) for output in compiled.outputs]

    return run


def _open_executorch(runtime: Any, path: str, threads: int | None) -> Run:
    import torch  # ExecuTorch's Python runtime takes its tensors

    method = runtime.Runtime.get().load_program(path).load_method("forward")

    def run(images: NDArray[np.float32]) -> list[NDArray[Any]]:
        found = method.execute([torch.from_numpy(np.ascontiguousarray(images))])
        return [np.array(output) for output in found]

    return run


def _open_coreml(coremltools: Any, path: str, threads: int | None) -> Run:
    model = coremltools.models.MLModel(path)
    names = [output.name for output in model.get_spec().description.output]

    def run(images: NDArray[np.float32]) -> list[NDArray[Any]]:
        found = model.predict({_IMAGES: images})
        return [np.asarray(found[name]) for name in names]

    return run


def _open_litert(interpreter: Any, path: str, threads: int | None) -> Run:
    model = interpreter.Interpreter(model_path=path, num_threads=threads)
    model.allocate_tensors()
    (given,), outputs = model.get_input_details(), model.get_output_details()

    def run(images: NDArray[np.float32]) -> list[NDArray[Any]]:
        model.set_tensor(given["index"], images)
        model.invoke()
        return [model.get_tensor(output["index"]) for output in outputs]

    return run


ENGINES: dict[str, Engine] = {
    ".xml": Engine("OpenVINO", "openvino", "openvino", _open_openvino),
    ".pte": Engine("ExecuTorch", "executorch.runtime", "executorch", _open_executorch),
    ".mlpackage": Engine("Core ML", "coremltools", "coreml", _open_coreml),
    ".tflite": Engine("LiteRT", "ai_edge_litert.interpreter", "litert", _open_litert),
}
"""The runtimes by the suffix of their files."""


class EngineFile(ExportedFile):
    """An open exported file of a runtime in `ENGINES`, with its metadata.

    Args:
        path: Path of a file that `spanets export` wrote.
        threads: Threads of the runtime; None means its choice.

    Raises:
        UserError: the runtime is missing or cannot read the file, or the metadata beside it are
            missing or damaged.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        metadata, shape, outputs = _read_beside(Path(path))
        super().__init__(path, metadata, shape, outputs)
        self._compute = open_engine(path, threads)

    def run(self, images: NDArray[np.float32]) -> list[NDArray[Any]]:
        """Returns the outputs for preprocessed images; see `ExportedFile`."""
        self.check_images(images)  # some runtimes do not
        return self._compute(images)


def open_engine(path: str | Path, threads: int | None = None) -> Run:
    """Opens an exported file of a runtime in `ENGINES` without its metadata.

    Raises:
        UserError: the runtime is missing, or cannot read or run the file.
    """
    engine = ENGINES[Path(path).suffix.lower()]
    module = require(engine.module, engine.extra)

    def call(function: Callable[..., Any], *given: Any) -> Any:
        try:
            return function(*given)
        # The runtimes' errors have no common base class.
        except Exception as error:
            raise UserError(
                f"{path}: {engine.name} cannot run it here ({first_line(error)})"
            ) from error

    compute = call(engine.open, module, str(path), threads)
    return lambda images: call(compute, images)


def open_exported(path: str | Path, threads: int | None = None) -> ExportedFile:
    """Opens an exported file of any runtime; see `OnnxFile` and `EngineFile`."""
    kind = EngineFile if Path(path).suffix.lower() in ENGINES else OnnxFile
    return kind(path, threads)


def describe_beside(path: Path) -> Path:
    """Returns the path of the metadata of an exported file."""
    return path.with_name(f"{path.name}.json")


def format_beside(
    metadata: Mapping[str, Any], shape: list[int | str], outputs: Mapping[str, list[int | str]]
) -> str:
    """Returns the text of the metadata beside an exported file."""
    return json.dumps({_IMAGES: shape, _OUTPUTS: outputs, **metadata}, indent=1) + "\n"


def _read_beside(path: Path) -> tuple[dict[str, Any], list[int | str], list[Output]]:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    beside = describe_beside(path)
    if not beside.exists():
        raise UserError(
            f"{path}: {beside.name}, with its preprocessing and classes, is not beside it; keep "
            "the files of `spanets export` together"
        )
    metadata = parse_metadata(read_text_file(beside, _MOST_METADATA), beside)
    shape, outputs = metadata.get(_IMAGES), metadata.get(_OUTPUTS)
    if (
        not isinstance(shape, list)
        or not _is_shape(shape)
        or len(shape) != 4
        or not isinstance(outputs, dict)
        or not outputs
    ):
        raise UserError(f"{beside}: its shapes are damaged; export it again")
    if not all(map(_is_shape, outputs.values())):
        raise UserError(f"{beside}: its shapes are damaged; export it again")
    return metadata, shape, [Output(name, sides) for name, sides in outputs.items()]


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(side) in (int, str) for side in value)
