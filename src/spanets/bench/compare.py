"""`spanets bench`: timm models, checkpoints and exported files side by side, as they are used."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spanets.bench.costs import Costs, count_costs, count_parameters
from spanets.bench.memory import peak_memory
from spanets.bench.running import Setting, make_exported_task, make_task
from spanets.bench.sources import Source, build_sources, check_sources
from spanets.bench.timing import SESSIONS_SETTLE, circumstances, interleave, quartiles
from spanets.mixers.adaptive import SpectralFilter
from spanets_runtime.errors import UserError, first_line

# What torch says of tensors that do not fit, or whose bytes no number tells.
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
        quartile1_ms: First quartile of it.
        quartile3_ms: Third quartile.
        images_per_s: Throughput at the median.
        peak_memory_mb: Weights, and what a batch adds at its peak; None where that is not known.
        parameters: Number; of an exported file, which may store them otherwise, None.
        macs: Multiply-accumulates of one image; of an exported file None.
        fft_flops: Operations of one image's Fourier transforms; of an exported file None.
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
    """Times models side by side: in turn, in rounds, on random images.

    Inference runs the inference form (`timm.utils.reparameterize_model`).

    Args:
        models: timm names, which get random weights, checkpoints, and with the backend "onnx" files
            that `export_model` wrote, in whose number format they run.
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
    check_sources(models, forms, setting)
    rows = []
    for size in sizes:
        built = build_sources(models, forms, size, setting.train)
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


@dataclass(frozen=True)
class _Ready:
    """What is timed, and what is known of it before."""

    task: Callable[[], object]
    parameters: int | None = None
    costs: Costs | None = None
    memory: int | None = None


def _compare_at(
    sources: Sequence[Source], setting: Setting, batch: int, size: int, rounds: int, warmup: int
) -> list[Row]:
    # Else the code of an earlier size would serve this one, or the compiler would give up.
    torch.compiler.reset()
    ready = []
    for source in sources:
        with _one_line(f"{source.name} at {batch}x{size}x{size}"), _compiling(len(sources)):
            ready.append(_prepare(source, setting, batch, size))
    # By number: a model may be named twice, to see the noise.
    tasks = {str(number): one.task for number, one in enumerate(ready)}
    settle = SESSIONS_SETTLE if setting.backend == "onnx" else 0.0
    seconds = interleave(tasks, rounds, warmup, setting.device, settle)
    rows = []
    for source, one, times in zip(sources, ready, seconds.values(), strict=True):
        low, median, high = quartiles(times)
        rows.append(
            Row(
                source.name,
                source.form,
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


def _prepare(source: Source, setting: Setting, batch: int, size: int) -> _Ready:
    """Counts, and runs until the code is compiled."""
    network = source.network
    if isinstance(network, Path):
        task = make_exported_task(network, batch, size)
        task()
        return _Ready(task)
    costs, parameters = _count_as_run(network, setting, size), count_parameters(network)
    task, weights = make_task(network, setting, batch, size)
    memory = _first_runs(task, setting)
    return _Ready(task, parameters, costs, None if memory is None else memory + weights)


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Says in one line what compilers and models, which have errors of all kinds, stumble over.

    Raises:
        UserError: whatever it was, but for a full GPU.
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
    """Counts operations: ONNX and compilers for the CPU get products for SPANetV2's FFTs."""
    traced = setting.backend == "onnx" or (setting.backend == "compile" and setting.device == "cpu")
    if traced and any(isinstance(module, SpectralFilter) for module in network.modules()):
        network = copy.deepcopy(network)
        for module in network.modules():
            if isinstance(module, SpectralFilter) and module.method == "auto":
                module.method = "matmul"
    return count_costs(network, size)


def _compiling(models: int) -> AbstractContextManager[object]:
    """Lets so many models that share their code be compiled, and fails where one is not."""
    # In torch.compiler.config, which is public, older versions of torch lack these limits.
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
