"""The panel "Frequencies": an image's spectrum, what stages keep of it, and the filters learnt."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spanets.analysis.capture import find_stages, hooked
from spanets.analysis.fourier import (
    complete_spectrum,
    log_amplitude,
    profile_frequencies,
    relative_log_amplitude,
)
from spanets.analysis.robustness import band_pass
from spanets.explore.pictures import colour, curves, sheet, to_image
from spanets.explore.results import Series, Shown, answer_series, join, spectrum_series
from spanets.explore.twins import balances_of, contexts_of, last_contexts, stage_of
from spanets.explore.workbench import Model, Prepared, Settings, Workbench, run
from spanets.mixers import SpectralFilter, SpectralPool
from spanets.spectral import low_frequency_mask, resize_half_spectrum
from spanets_runtime.errors import UsageError, UserError

MOST_SIDE = 512
"""Largest side of masks and gains, in bins."""

Curve = tuple[NDArray[Any], NDArray[Any]]


def band(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Shows an image of which one band of frequencies is left, and what the model says of it.

    The mean of each channel stays, as in `spanets analyze --what bands`.

    Raises:
        UsageError: the band's edges are out of range or order.
    """
    if not 0 <= settings.low <= settings.high <= 1.5:
        raise UsageError(
            f"band is {settings.low:g} to {settings.high:g}, must be two rising numbers from 0 to "
            "1.5, fractions of Nyquist"
        )
    (word,) = words
    model = bench.image_level(word)
    prepared = bench.prepare(word, settings.image)
    mean, std = _statistics(model)
    values = prepared.batch * std + mean  # 1 C S S, from 0 to 1
    average = values.mean((-2, -1), keepdim=True)
    kept = band_pass(values - average, settings.low, settings.high) + average
    with model.twins.borrow() as network:
        whole = bench.remember(
            ("whole image", word, settings.image), lambda: run(network, prepared.batch)
        )
        outputs = run(network, (kept - mean) / std)
    answers = {"whole image": model.answer(whole), "this band": model.answer(outputs)}
    spectra = {"whole image": _spectrum(values), "this band": _spectrum(kept)}
    limits = (spectra["whole image"].min(), spectra["whole image"].max())
    cells = {
        "image": to_image(prepared.pixels),
        "this band of it": to_image(_visible(kept, prepared)),
        "spectrum": colour(spectra["whole image"], *limits, side=224),
        "its band": colour(spectra["this band"], *limits, side=224),
    }
    series = answer_series(answers) + spectrum_series("log amplitude of the image", spectra)
    return Shown({"band": sheet(cells, 4, 224)}, answers, series)


def _statistics(model: Model) -> tuple[Tensor, Tensor]:
    preprocess = model.source.preprocess
    mean, std = (torch.tensor(v)[:, None, None] for v in (preprocess.mean, preprocess.std))
    return mean, std


def _spectrum(values: Tensor) -> NDArray[Any]:
    """Returns the centred log amplitude of an image (1, C, S, S): (S, S)."""
    return log_amplitude(values)[0].numpy()


def _visible(values: Tensor, prepared: Prepared) -> NDArray[Any]:
    """Returns an image (1, C, S, S) as a picture; of other channels than three their mean."""
    pixels = values[0].permute(1, 2, 0).numpy()
    return pixels if pixels.shape[2] == 3 else pixels.mean(2, keepdims=True).repeat(3, 2)


def stages(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Shows the relative log amplitude of the image and of each stage's maps, as curves."""
    (word,) = words
    model = bench.image_level(word)
    model.source.require_layers()
    prepared = bench.prepare(word, settings.image)
    lines = {"image": profile_of(prepared.batch)}
    maps: dict[str, Tensor] = {}
    with model.twins.borrow() as network:
        names = find_stages(network)
        try:
            with hooked(network, names, maps.__setitem__):
                run(network, prepared.batch)
        except ValueError as error:
            raise UserError(f"{word}: {error}") from error
    lines |= {name: profile_of(maps[name]) for name in names}
    plot = "relative log amplitude (natural logarithm) against frequency (fraction of Nyquist)"
    series = tuple(Series(plot, name, x.tolist(), y) for name, (x, y) in lines.items())
    picture = curves(lines, "frequency (fraction of Nyquist)", "Δ log amplitude")
    return Shown({"stages": picture}, {}, series)


def profile_of(maps: Tensor) -> Curve:
    """Returns frequencies and relative log amplitude of maps (1, C, H, W), over rings."""
    x = profile_frequencies(maps.shape[-2], maps.shape[-1], "radial")
    return x, relative_log_amplitude(maps, "radial")[0].numpy()


def filters(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Shows the masks of SPANet's heads, or the gains that SPANetV2 learnt, at any size.

    Raises:
        UsageError: the size is out of range.
    """
    side = settings.side
    if not 2 <= side <= MOST_SIDE:
        raise UsageError(f"size is {side}, must be from 2 to {MOST_SIDE} bins")
    (word,) = words
    network = bench.model(word).source.network  # only its parameters are read
    with torch.no_grad():
        gains = masks_of(network, side) | gains_of(network, side)
    if not gains:
        return Shown({}, notes=(f"{word}: has no spectral filter to show",))
    cells = {title: colour(gain, 0, 1, "magma", 132) for title, gain in gains.items()}
    columns = 3 if contexts_of(network) else 4
    series = spectrum_series(f"gain at {side}x{side}", gains)
    return Shown({"filters": sheet(cells, columns)}, {}, series)


def masks_of(network: nn.Module, side: int) -> dict[str, NDArray[Any]]:
    """Returns the mask of each head of each stage's last SPAM, (side, side), by title with λ."""
    found = {}
    for stage, name in last_contexts(network).items():
        context = contexts_of(network)[name]
        pool = context.filter
        if not isinstance(pool, SpectralPool):
            continue
        ring, heads = pool.channel_ring(context.proj.weight), len(pool.balances)
        rings: list[Any] = [ring] * heads
        if isinstance(ring, Tensor):
            rings = [part.mean().item() for part in ring.chunk(heads)]
        for i, (balance, one) in enumerate(zip(balances_of(context), rings, strict=True)):
            mask = low_frequency_mask(side, side, pool.radius, balance, one)
            found[f"{stage} head {i + 1}\nλ {balance:.2f}, r {pool.radius:g}"] = mask.numpy()
    return found


def gains_of(network: nn.Module, side: int) -> dict[str, NDArray[Any]]:
    """Returns the gain that each stage's last `SpectralFilter` learnt, mean over channels.

    Returns:
        Centred gains (side, side) from 0 to 1, by title.
    """
    last = {
        stage_of(name): module
        for name, module in network.named_modules()
        if isinstance(module, SpectralFilter)
    }
    return {f"{stage}\nmean of channels": _gain(one, side) for stage, one in last.items()}


def _gain(module: SpectralFilter, side: int) -> NDArray[Any]:
    logits = resize_half_spectrum(module.logits, side, side)
    half = (logits if module.alpha is None else module.alpha * logits).sigmoid().mean(0)
    whole = complete_spectrum(half, side)
    # A real map has |F(u, v)| = |F(-u, -v)|, so the mean of both gains acts (`spectral_rescale`).
    mirrored = whole.flip(-2, -1).roll((1, 1), (-2, -1))
    return torch.fft.fftshift((whole + mirrored) / 2).float().numpy()


def frequencies(bench: Workbench, words: list[str], settings: Settings) -> Shown:
    """Shows `band`, `stages` and `filters` together."""
    return join([part(bench, words, settings) for part in (band, stages, filters)])
