"""The panel "Look": what a model says of an image, where it looks, and what its contexts hold."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spanets.analysis.capture import find_stages, hooked
from spanets.analysis.study.explain import fit_to_images, score_cam
from spanets.explore.pictures import heat, sheet, to_image
from spanets.explore.results import Shown, answer_series, join, map_series
from spanets.explore.twins import last_contexts
from spanets.explore.workbench import Prepared, Settings, Workbench, run
from spanets.mixers import SpectralContext
from spanets.mixers.context import split_gates
from spanets.tasks import load_task
from spanets_runtime.errors import UserError


def contexts_by_head(
    network: nn.Module, batch: Tensor, only: str | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Runs an image and returns the context of each head, magnitude averaged over channels.

    The context is a sum over the heads of SPAM (Eq. 19), each with its own λ.

    Args:
        network: A borrowed network with SPAMs.
        batch: An image (1, C, H, W).
        only: A stage; None means all.

    Returns:
        Maps (heads, h, w) of the last block of each stage, by stage; and the network's outputs.
    """
    names = {s: n for s, n in last_contexts(network).items() if only is None or s == only}
    filtered: dict[str, Tensor] = {}
    sites = [f"{name}.filter" for name in names.values()]
    with hooked(network, sites, filtered.__setitem__, "nchw"):
        outputs = run(network, batch)
    found = {}
    for stage, name in names.items():
        context: Any = network.get_submodule(name)
        gates = split_gates(filtered[f"{name}.filter"], context.gates)
        maps = [
            context.proj(gate) + b[:, None, None]
            for gate, b in zip(gates, context.bias, strict=True)
        ]
        found[stage] = torch.cat([m.abs().mean(1) for m in maps])
    return found, outputs


def has_contexts(network: nn.Module) -> bool:
    """Whether a network has SPAMs."""
    return any(isinstance(module, SpectralContext) for module in network.modules())


def look(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Shows the answers of one or more models, and their contexts by stage and head."""
    return join([_look_once(bench, word, settings) for word in words])


def look_closely(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Shows what `look` does, and Score-CAM, which runs the model once for each channel."""
    shown = look(bench, words, settings)
    return join([shown, *(score_cams(bench, [word], settings) for word in words)])


def _look_once(bench: Workbench, word: str, settings: Settings) -> Shown:
    model = bench.image_level(word)
    model.source.require_layers()
    prepared = bench.prepare(word, settings.image)
    with model.twins.borrow() as network:
        if not has_contexts(network):
            answers = {word: model.answer(run(network, prepared.batch))}
            note = f"{word}: has no SPAM, so it has no contexts to show"
            return Shown({}, answers, answer_series(answers), (note,))
        maps, outputs = contexts_by_head(network, prepared.batch)
    answers = {word: model.answer(outputs)}
    values = {
        f"{stage} head {i + 1}": part.numpy()
        for stage, heads in maps.items()
        for i, part in enumerate(heads)
    }
    cells = {title: _over(prepared, part) for title, part in values.items()}
    heads = max(len(part) for part in maps.values())
    series = answer_series(answers) + map_series(f"context of {word}", values)
    return Shown({f"contexts of {word}": sheet(cells, heads)}, answers, series)


def score_cams(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Shows Score-CAM for the most likely class of each model, as `spanets explain` computes it."""
    return join([_score_cam_once(bench, word, settings) for word in words])


def _score_cam_once(bench: Workbench, word: str, settings: Settings) -> Shown:
    model = bench.image_level(word)
    model.source.require_layers()
    prepared, info = bench.prepare(word, settings.image), model.source.info
    task = load_task(info.task)
    with model.twins.borrow() as network:
        target = task.most_telling(info, run(network, prepared.batch)[0])
        try:
            site = find_stages(network)[-1]
            maps, _ = score_cam(network, prepared.batch, site, [target], evidence=task.evidence)
        except (UserError, ValueError) as error:  # ValueError: the module's output is not a map
            return Shown(notes=(f"{word}: no Score-CAM: {error}",))
    values = maps[0].numpy()
    label = model.labels[target] if model.labels else f"output {target}"
    cells = {
        "image": to_image(prepared.pixels).resize((264, 264)),
        f"Score-CAM, {site}\n{label}": heat(prepared.pixels, values, 264),
    }
    series = map_series(f"Score-CAM of {word}", {f"{site}, {label}": values})
    return Shown({f"Score-CAM of {word}": sheet(cells, 2, 264)}, {}, series)


def _over(prepared: Prepared, values: NDArray[Any]) -> Any:
    given = torch.from_numpy(np.ascontiguousarray(values))[None]
    return heat(prepared.pixels, fit_to_images(given, prepared.batch))
