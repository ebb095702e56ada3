"""`spanets bench`: compares timm models, checkpoints and exported files."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timm.utils import reparameterize_model
from torch import nn

from spanets.bench.costs import Costs, count_costs, count_parameters
from spanets.bench.memory import peak_memory
from spanets.bench.running import Setting, make_exported_step, make_step
from spanets.bench.timed_models import TimedModel, build_models, check_models
from spanets.bench.timing import SESSIONS_SETTLE, Step, circumstances, interleave, quartiles
from spanets.mixers.adaptive import SpectralFilter
from spanets_runtime.errors import UserError, first_line

# torch's messages for tensors that do not fit into memory or whose size overflows.
_TOO_LARGE = ("can't allocate memory", "Storage size calculation overflowed", "Overflow when")


@dataclass(frozen=True)
class Row:
    """One model at one batch and image size.

    Attributes:
        model: timm name, or the path of a checkpoint or an exported file.
        form: "default", or "fft" for the form with Fourier transforms.
        batch: Images at a time.
        size: Image side, in pixels.
        latency_ms: Median time of a batch.
        quartile1_ms: First quartile of that time.
        quartile3_ms: Third quartile of that time.
        images_per_s: Throughput at the median.
        peak_memory_mb: Weights plus the peak of a batch; None if unknown.
        parameters: Number of parameters, frozen ones included, of the network that is timed: the
            folded one for inference. None for an exported file.
        macs: Multiply-accumulates of one image in this network; None for an exported file.
        fft_flops: Operations of one image's Fourier transforms; None for an exported file.
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
    parameters: int | None
    macs: int | None
    fft_flops: int | None


def compare(
    models: Sequence[str],
    setting: Setting,
    batches: Sequence[int] = (1,),
    sizes: Sequence[int] = (224,),
    forms: Sequence[str] = ("default",),
    rounds: int = 15,
    warmup: int = 3,
) -> dict[str, Any]:
    """Times models on random images, in interleaved rounds.

    For inference, models are folded first (`timm.utils.reparameterize_model`).

    Args:
        models: timm names (with random weights), checkpoints and, with the backend "onnx", files
            of `export_model`, which run in their own number format.
        setting: How to run the models.
        batches: Batch sizes.
        sizes: Image sides, in pixels.
        forms: Forms of this package's models; other models have only "default".
        rounds: Number of measured rounds.
        warmup: Number of rounds before them.

    Returns:
        Plain values: "circumstances", "setting", "rounds" and "rows".

    Raises:
        UsageError: unknown name, or settings that cannot be combined.
        UserError: a model that cannot be compiled or exported.
    """
    setting.check()
    check_models(models, forms, setting)
    rows = []
    for size in sizes:
        built = build_models(models, forms, size, setting.train)
        for batch in batches:
            rows += _compare_at(built, setting, batch, size, rounds, warmup)
    return {
        "circumstances": circumstances(setting.device),
        "setting": asdict(setting),
        "rounds": rounds,
        "rows": [asdict(row) for row in rows],
    }


def set_threads(threads: int | None) -> None:
    """Sets torch's number of CPU threads; None keeps it."""
    if threads is not None:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Ready:
    """A model that is ready for timing, with its costs."""

    step: Step
    parameters: int | None = None
    costs: Costs | None = None
    memory: int | None = None


def _compare_at(
    timed: Sequence[TimedModel], setting: Setting, batch: int, size: int, rounds: int, warmup: int
) -> list[Row]:
    # Otherwise torch reuses code compiled for an earlier size, or stops compiling.
    torch.compiler.reset()
    ready = []
    for model in timed:
        with _one_line(f"{model.name} at {batch}x{size}x{size}"), _compiling(len(timed)):
            ready.append(_prepare(model, setting, batch, size))
    # Keyed by number: a user may name a model twice, to see the noise.
    steps = {str(number): one.step for number, one in enumerate(ready)}
    settle = SESSIONS_SETTLE if setting.backend == "onnx" else 0.0
    seconds = interleave(steps, rounds, warmup, setting.device, settle)
    rows = []
    for model, one, times in zip(timed, ready, seconds.values(), strict=True):
        low, median, high = quartiles(times)
        rows.append(
            Row(
                model.name,
                model.form,
                batch,
                size,
                latency_ms=round(median * 1e3, 3),
                quartile1_ms=round(low * 1e3, 3),
                quartile3_ms=round(high * 1e3, 3),
                images_per_s=round(batch / median, 1),
                peak_memory_mb=None if one.memory is None else round(one.memory / 1e6, 1),
                parameters=one.parameters,
                macs=None if one.costs is None else one.costs.macs,
                fft_flops=None if one.costs is None else one.costs.fft_flops,
            )
        )
    return rows


def _prepare(model: TimedModel, setting: Setting, batch: int, size: int) -> _Ready:
    """Counts the costs and runs the model until its code is compiled."""
    network = model.network
    if isinstance(network, Path):
        step = make_exported_step(network, batch, size)
        step()
        return _Ready(step)
    if not setting.train:
        network = reparameterize_model(network.eval())  # the network that is counted and timed
    parameters = count_parameters(network, frozen=True)
    costs = _count_as_run(network, setting, size)
    step, weights = make_step(network, setting, batch, size)
    memory = _first_runs(step, setting)
    return _Ready(step, parameters, costs, None if memory is None else memory + weights)


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Turns any error of a compiler or model into one line.

    Raises:
        UserError: any error, except a GPU that is out of memory.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if any(words in str(error) for words in _TOO_LARGE):
            raise UserError(
                f"{where}: does not fit into memory; make --size or --batch smaller"
            ) from error
        raise UserError(f"{where}: {first_line(error)}") from error


def _count_as_run(network: nn.Module, setting: Setting, size: int) -> Costs:
    """Counts operations as run: ONNX and CPU compilers replace SPANetV2's FFTs by products."""
    traced = setting.backend == "onnx" or (setting.backend == "compile" and setting.device == "cpu")
    if traced and any(isinstance(module, SpectralFilter) for module in network.modules()):
        network = copy.deepcopy(network)
        for module in network.modules():
            if isinstance(module, SpectralFilter) and module.method == "auto":
                module.method = "matmul"
    return count_costs(network, size)


def _compiling(models: int) -> AbstractContextManager[object]:
    """Raises the compile limit for models that share code, and fails if one is not compiled."""
    # Private config: in older torch, the public torch.compiler.config lacks these limits.
    config = torch._dynamo.config
    if hasattr(config, "recompile_limit"):
        return config.patch(recompile_limit=8 + models, fail_on_recompile_limit_hit=True)
    return config.patch(cache_size_limit=8 + models, fail_on_cache_limit_hit=True)  # torch 2.6


def _first_runs(step: Step, setting: Setting) -> int | None:
    """Runs a step until it is compiled, then measures its memory."""
    step()
    step()
    # onnxruntime keeps its memory, so that a later run shows no increase.
    return None if setting.backend == "onnx" else peak_memory(step, setting.device)
