"""`spanets bench`: any timm models side by side, as they are used."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.utils import reparameterize_model
from torch import Tensor, nn
from tqdm import tqdm

import spanets
from spanets.benchmark.costs import Costs, count_costs, count_parameters
from spanets.benchmark.memory import peak_memory
from spanets.benchmark.timing import circumstances, interleave, quartiles
from spanets.checkpoint import create_model
from spanets_runtime.errors import UsageError, UserError, first_line

BACKENDS = ("eager", "compile", "onnx")
FORMS = ("default", "fft")
# What torch says of tensors that do not fit, or whose bytes no number tells.
_TOO_LARGE = ("can't allocate memory", "Storage size calculation overflowed", "Overflow when")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """How all models of a comparison are run.

    Attributes:
        dtype: "float32", "bfloat16" or "float16"; training uses autocast for the latter two.
        backend: "eager", "compile" or "onnx" (onnxruntime).
        train: Time training steps (forward, backward, SGD) in place of inference.
        device: "cpu", "cuda", "cuda:1", …
        channels_last: Lay weights and images out channels last.
    """

    dtype: str = "float32"
    backend: str = "eager"
    train: bool = False
    device: str = "cpu"
    channels_last: bool = False

    def check(self) -> None:
        """Raises UsageError for what does not exist or go together."""
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype is {self.dtype!r}, allowed: {', '.join(DTYPES)}")
        if self.backend not in BACKENDS:
            raise UsageError(f"--backend is {self.backend!r}, allowed: {', '.join(BACKENDS)}")
        if self.backend == "onnx" and (self.train or self.device != "cpu"):
            raise UsageError(
                "--backend onnx runs inference on the CPU; leave out --train, --device"
            )
        if self.backend == "onnx" and self.channels_last:
            raise UsageError("--backend onnx lays maps out by itself; leave out --channels-last")
        if self.backend == "onnx" and self.dtype == "bfloat16":
            raise UsageError("--backend onnx takes --dtype float32 or float16, not bfloat16")
        if self.device.split(":")[0] not in ("cpu", "cuda"):
            raise UsageError(f"--device is {self.device!r}, allowed: cpu, cuda, cuda:1, …")
        try:
            torch.empty(1, device=self.device)
        # torch's message depends on how it was built, and so does its type.
        except (RuntimeError, AssertionError) as error:
            raise UsageError(
                f"--device {self.device!r} cannot be used here: {first_line(error)}"
            ) from error


@dataclass(frozen=True)
class Row:
    """One model at one batch and image size.

    Attributes:
        model: timm name.
        form: "default", or "fft" for the form with Fourier transforms.
        batch: Images at a time.
        size: Image side, in pixels.
        latency_ms: Median time of a batch.
        quartile1_ms: First quartile of it.
        quartile3_ms: Third quartile.
        images_per_s: Throughput at the median.
        peak_memory_mb: Weights, and what a batch adds at its peak; None where that is not known.
        parameters: Number.
        macs: Multiply-accumulates of one image.
        fft_flops: Operations of one image's Fourier transforms.
    """

    model: str
    form: str
    batch: int
    size: int
    latency_ms: float
    quartile1_ms: float
    quartile3_ms: float
    images_per_s: float
    peak_memory_mb: float | None
    parameters: int
    macs: int
    fft_flops: int


def compare(
    models: Sequence[str],
    setting: Setting,
    batches: Sequence[int] = (1,),
    sizes: Sequence[int] = (224,),
    forms: Sequence[str] = ("default",),
    rounds: int = 15,
    warmup: int = 3,
) -> dict[str, Any]:
    """Times models side by side: in turn, in rounds, with random weights and images.

    Inference runs the inference form (`timm.utils.reparameterize_model`).

    Args:
        models: timm names.
        setting: How they are run.
        batches: Batch sizes.
        sizes: Image sides.
        forms: Of this package's models; others have "default" alone.
        rounds: Rounds that count.
        warmup: Rounds before them.

    Returns:
        Plain values: "circumstances", "setting", "rounds" and "rows".

    Raises:
        UsageError: an unknown name, or settings that do not go together.
        UserError: a model that cannot be compiled or exported.
    """
    setting.check()
    if unknown := set(forms) - set(FORMS):
        raise UsageError(f"--form is {min(unknown)!r}, allowed: {', '.join(FORMS)}")
    rows = []
    for size in sizes:
        built = _build_all(models, forms, size)
        for batch in batches:
            rows += _compare_at(built, setting, batch, size, rounds, warmup)
    return {
        "circumstances": circumstances(setting.device),
        "setting": asdict(setting),
        "rounds": rounds,
        "rows": [asdict(row) for row in rows],
    }


def set_threads(threads: int | None) -> None:
    """Sets torch's threads on the CPU; None leaves them."""
    if threads is not None:
        torch.set_num_threads(threads)


def build_form(name: str, form: str = "default", **arguments: Any) -> nn.Module:
    """Builds a model in one of the forms of its function."""
    if form == "fft":
        arguments["spectral_method"] = "fft"
    return create_model(name, arguments)


def make_task(
    model: nn.Module, setting: Setting, batch: int, size: int
) -> tuple[Callable[[], object], int]:
    """Returns a callable that runs one batch, and the bytes of the weights that it uses.

    Raises:
        UserError: the model cannot be exported, or refuses the size.
    """
    channels = getattr(model, "in_chans", 3)
    images = torch.randn(batch, channels, size, size)
    if setting.backend == "onnx":
        return _onnx_task(model, images, setting.dtype), _bytes(model, DTYPES[setting.dtype])
    images = _place(images, setting)
    if setting.train:
        network = _place(model.train(), setting)
        return _training_task(network, images, setting), _bytes(network)
    network = reparameterize_model(model.eval()).to(DTYPES[setting.dtype])
    network = _place(network, setting)
    return _inference_task(network, images.to(DTYPES[setting.dtype]), setting), _bytes(network)


def _place(what: Any, setting: Setting) -> Any:
    """Moves a network or images to the device, and lays them out."""
    what = what.to(setting.device)
    return what.to(memory_format=torch.channels_last) if setting.channels_last else what


def _bytes(model: nn.Module, dtype: torch.dtype | None = None) -> int:
    values = [*model.parameters(), *model.buffers()]
    return sum(p.numel() * (dtype or p.dtype).itemsize for p in values)


def _build_all(
    models: Sequence[str], forms: Sequence[str], size: int
) -> list[tuple[str, str, nn.Module]]:
    own = set(spanets.list_models())
    wanted = [(name, form) for name in models for form in forms if form == "default" or name in own]
    if missing := set(models) - {name for name, _ in wanted}:
        raise UsageError(
            f"--form {' '.join(forms)}: {min(missing)} has none, only this package's models do"
        )
    built = []
    for name, form in tqdm(wanted, desc="build", disable=None, leave=False):
        config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
        # Those with embeddings of positions are made for one size.
        arguments = {"img_size": size} if config and config.fixed_input_size else {}
        built.append((name, form, build_form(name, form, **arguments)))
    return built


def _compare_at(
    built: Sequence[tuple[str, str, nn.Module]],
    setting: Setting,
    batch: int,
    size: int,
    rounds: int,
    warmup: int,
) -> list[Row]:
    tasks, facts = {}, {}
    # Else the code of an earlier size would serve this one, or the compiler would give up.
    torch._dynamo.reset()
    for index, (name, form, model) in enumerate(built):
        label = f"{index} {name} {form}"  # a model may be named twice, to see the noise
        try:
            costs = _count_as_run(name, form, model, setting, size)
            parameters = count_parameters(model)
            task, weights = make_task(model, setting, batch, size)
            with _compiling(len(built)):
                memory = _first_runs(task, setting)
        except (UserError, torch.OutOfMemoryError):
            raise
        # Compilers and models have errors of all kinds.
        except Exception as error:
            where = f"{name} at {batch}x{size}x{size}"
            if any(words in str(error) for words in _TOO_LARGE):
                raise UserError(
                    f"{where}: does not fit into memory; make --size or --batch smaller"
                ) from error
            raise UserError(f"{where}: {first_line(error)}") from error
        tasks[label] = task
        facts[label] = (name, form, costs, parameters, memory, weights)
    seconds = interleave(tasks, rounds, warmup, setting.device)
    rows = []
    for label, (name, form, costs, parameters, memory, weights) in facts.items():
        low, median, high = quartiles(seconds[label])
        rows.append(
            Row(
                name,
                form,
                batch,
                size,
                latency_ms=round(median * 1e3, 3),
                quartile1_ms=round(low * 1e3, 3),
                quartile3_ms=round(high * 1e3, 3),
                images_per_s=round(batch / median, 1),
                peak_memory_mb=None if memory is None else round((memory + weights) / 1e6, 1),
                parameters=parameters,
                macs=costs.macs,
                fft_flops=costs.fft_flops,
            )
        )
    return rows


def _count_as_run(name: str, form: str, model: nn.Module, setting: Setting, size: int) -> Costs:
    """Counts operations: ONNX and compilers for the CPU get products for SPANetV2's FFTs."""
    traced = setting.backend == "onnx" or (setting.backend == "compile" and setting.device == "cpu")
    if traced and form == "default" and name in spanets.list_models("spanetv2*"):
        with torch.device("meta"):
            model = build_form(name, spectral_method="matmul")
    return count_costs(model, size)


def _compiling(models: int) -> AbstractContextManager[object]:
    """Lets so many models that share their code be compiled, and fails where one is not."""
    config = torch._dynamo.config
    if hasattr(config, "recompile_limit"):
        return config.patch(recompile_limit=8 + models, fail_on_recompile_limit_hit=True)
    return config.patch(cache_size_limit=8 + models, fail_on_cache_limit_hit=True)  # torch 2.6


def _first_runs(task: Callable[[], object], setting: Setting) -> int | None:
    """Runs a task until it is compiled, then measures its memory."""
    task()
    task()
    # onnxruntime keeps what it has allocated, so that a later run adds nothing that could be seen.
    return None if setting.backend == "onnx" else peak_memory(task, setting.device)


def _inference_task(model: nn.Module, images: Tensor, setting: Setting) -> Callable[[], object]:
    network: Any = torch.compile(model, dynamic=False) if setting.backend == "compile" else model

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def _training_task(model: nn.Module, images: Tensor, setting: Setting) -> Callable[[], object]:
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


def _onnx_task(model: nn.Module, images: Tensor, dtype: str) -> Callable[[], object]:
    from spanets.export import export_model
    from spanets_runtime.onnx import open_session

    batch, _, size, _ = images.shape
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export_model(model, path, size, dtype, dynamic=False, batch=batch, allow_fft=True)
        session = open_session(path.read_bytes(), torch.get_num_threads())
    feed = {"images": images.numpy()}
    return lambda: session.run(None, feed)
