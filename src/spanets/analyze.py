"""`spanets analyze`: several models on a folder of images, figures and numbers in a folder."""

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

import spanets
from spanets.analysis import plots
from spanets.analysis.capture import capture, family_of, find_modules, stream, to_maps
from spanets.analysis.fourier import EPSILON, SpectrumStatistics
from spanets.analysis.response import effective_receptive_field, frequency_response
from spanets.checkpoint import create_model, is_checkpoint, restore_model
from spanets_runtime.errors import UsageError, UserError
from spanets_runtime.files import write_atomically
from spanets_runtime.images import ImageError, find_images, load_image
from spanets_runtime.preprocessing import Preprocessing

WHAT = ("amplitude", "response", "receptive-field")

CONVENTIONS = {
    "transform": "discrete, unnormalized; natural logarithm of modulus + epsilon",
    "epsilon": EPSILON,
    "origin": "spectra are centred: the origin at (H // 2, W // 2)",
    "order": "logarithm first, then the mean over channels, then over images",
    "frequency": "fraction of Nyquist, half a cycle a sample of the module's own map",
    "relative": "profile minus its value at the origin",
    "band": "95 % of the mean over images: 1.96 standard errors",
}


def analyze(
    models: Sequence[str],
    images: str | Path,
    out: str | Path,
    what: Sequence[str] = ("amplitude",),
    sites: str | Sequence[str] = "mixers",
    size: int | None = None,
    batch_size: int = 16,
    profile: str = "diagonal",
    limit: int | None = None,
) -> dict[str, Any]:
    """Measures models on a folder of images; writes figures, and numbers as JSON.

    A model whose numbers are already in `out`, by the same settings, is not run again.

    Args:
        models: timm names, checkpoints of `spanets train`, or "module:function" of the user's own,
            a function without arguments that returns a network.
        images: A folder, searched at any depth.
        out: Folder for figures and numbers.
        what: Of `WHAT`.
        sites: Of `find_modules`.
        size: Image side; None takes the model's own.
        batch_size: Images at a time.
        profile: "diagonal" or "radial".
        limit: At most so many images.

    Returns:
        The numbers, by model.

    Raises:
        UsageError: an unknown name, or settings that do not exist.
        UserError: no readable images, or a place that cannot be written.
    """
    if unknown := set(what) - set(WHAT):
        raise UsageError(f"--what is {min(unknown)!r}, allowed: {', '.join(WHAT)}")
    paths = find_images(images)[:limit]
    folder = Path(out)
    settings: dict[str, Any] = {
        "images": str(images),
        "count": len(paths),
        "files": _digest(paths),
        "what": sorted(what),
        "sites": sites,
        "size": size,
        "profile": profile,
        "version": spanets.__version__,
    }
    results = {}
    for source in models:
        record = folder / f"{_file_name(source)}.json"
        settings["model"] = _identity(source)
        done = _read_record(record, settings)
        if done is None:
            done = _analyze_one(source, paths, what, sites, size, batch_size, profile)
            content = {"model": source, "settings": settings, "conventions": CONVENTIONS, **done}
            done = _write_record(record, content)
        results[source] = done
    _draw(results, folder)
    return results


def load_any(source: str, size: int | None) -> tuple[nn.Module, Preprocessing]:
    """Builds a model from a timm name, a checkpoint or "module:function", with its preprocessing.

    Raises:
        UsageError: an unknown name, or a function that returns no network.
        UserError: an unreadable checkpoint.
    """
    if ":" in source and not Path(source).exists():
        model = _users_own(source)
        values = timm.data.resolve_model_data_config(model)
    elif is_checkpoint(source):
        model, card = restore_model(source)
        values = dict(card.preprocessing)
    else:
        config = timm.get_pretrained_cfg(source) if timm.is_model(source) else None
        fixed = size is not None and config is not None and config.fixed_input_size
        torch.manual_seed(0)  # random weights, the same each time
        model = create_model(source, {"img_size": size} if fixed else {})
        values = timm.data.resolve_model_data_config(model)
    if size is not None:
        values = {**values, "input_size": [3, size, size]}
    return model.eval().requires_grad_(False), Preprocessing.parse(
        {**values, "crop_mode": "center"}, source
    )


def batches(paths: Sequence[Path], preprocess: Preprocessing, batch_size: int) -> Iterator[Tensor]:
    """Yields preprocessed images (B, 3, S, S); unreadable ones are passed over.

    Raises:
        UserError: none is readable.
    """
    kept: list[Tensor] = []
    seen = False
    for path in paths:
        try:
            kept.append(torch.from_numpy(preprocess(load_image(path))))
        except ImageError:
            continue
        seen = True
        if len(kept) == batch_size:
            yield torch.stack(kept)
            kept = []
    if kept:
        yield torch.stack(kept)
    if not seen:
        raise UserError(f"{paths[0].parent}: a folder without readable images")


def _users_own(source: str) -> nn.Module:
    module, _, function = source.partition(":")
    try:
        model = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{source}: {error}; give module:function, importable from here"
        ) from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"{source}: returns a {type(model).__name__}, must be a torch.nn.Module")
    return model


def _analyze_one(
    source: str,
    paths: Sequence[Path],
    what: Sequence[str],
    sites: str | Sequence[str],
    size: int | None,
    batch_size: int,
    profile: str,
) -> dict[str, Any]:
    model, preprocess = load_any(source, size)
    names = find_modules(model, sites)
    result: dict[str, Any] = {}
    try:
        if "amplitude" in what:
            statistics = SpectrumStatistics(profile)
            stream(model, batches(paths, preprocess, batch_size), statistics, names)
            result["amplitude"] = statistics.results()
        if "response" in what:
            first = next(batches(paths, preprocess, 1))
            result["response"] = _responses(model, names, first)
        if "receptive-field" in what:
            first = next(batches(paths, preprocess, min(batch_size, 4)))
            features = _features_of(model)
            result["receptive_field"] = effective_receptive_field(features, first).numpy()
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
    return result


def _responses(model: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, Any]:
    """Gain per frequency of each module, linearized at what an image brings it."""
    points: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, given, name=name: points.__setitem__(name, given[0])
        )
        for name in names
    ]
    try:
        capture(model, images, names)
    finally:
        for handle in handles:
            handle.remove()
    family = family_of(model)
    if family is not None and family.layout != "nchw":
        raise ValueError("computes channels last; responses need maps (B, C, H, W)")
    table = {}
    for name in names:
        if points[name].ndim != 4:
            raise ValueError(f"{name}: takes no maps, so that it has no response to a frequency")
        response = frequency_response(model.get_submodule(name), points[name])
        table[name] = {"gain": response.gain.numpy(), "bands": response.bands()}
    return table


def _features_of(model: nn.Module) -> Any:
    if not hasattr(model, "forward_features"):
        raise ValueError("has no forward_features, which the receptive field needs")
    forward: Any = model.forward_features
    family, prefix = family_of(model), getattr(model, "num_prefix_tokens", 0)
    layout = "auto" if family is None else family.layout

    def features(images: Tensor) -> Tensor:
        size = (images.shape[-2], images.shape[-1])
        return to_maps(forward(images), size, layout, prefix)

    return features


def _draw(results: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Draws all models, on one scale where they are compared."""
    amplitude = {source: row["amplitude"] for source, row in results.items() if "amplitude" in row}
    if amplitude:
        means = [np.array(m["mean"]) for rows in amplitude.values() for m in rows.values()]
        low, high = min(m.min() for m in means), max(m.max() for m in means)
        margin = 0.05 * (high - low)
        for source, rows in amplitude.items():
            figure = plots.plot_profiles(rows, _title(source), (low - margin, high + margin))
            plots.save_figure(figure, folder / f"{_file_name(source)}_amplitude")
        last = {
            _title(source): [m["last"] for m in rows.values()] for source, rows in amplitude.items()
        }
        plots.save_figure(plots.plot_depth(last), folder / "depth")
        spectra = {
            f"{_title(source)}\n{name}": np.array(rows[name]["spectrum"])
            for source, rows in amplitude.items()
            for name in _spread(list(rows), 4)
        }
        plots.save_figure(plots.plot_spectra(spectra, columns=4), folder / "spectra")
    for source, row in results.items():
        if "response" in row:
            gains = {name: np.array(m["gain"]) for name, m in row["response"].items()}
            name = f"{_file_name(source)}_response"
            plots.save_figure(plots.plot_responses(gains), folder / name)
        if "receptive_field" in row:
            field = {_title(source): np.array(row["receptive_field"])}
            name = f"{_file_name(source)}_receptive_field"
            plots.save_figure(plots.plot_field(field), folder / name)


def _spread(names: Sequence[str], count: int) -> list[str]:
    """Returns some names, evenly spread from the first to the last."""
    if len(names) <= count:
        return list(names)
    return [names[round(i * (len(names) - 1) / (count - 1))] for i in range(count)]


def _digest(paths: Sequence[Path]) -> str:
    """Tells one set of files from another by names and sizes."""
    told = "\n".join(f"{path.name} {path.stat().st_size}" for path in paths)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _identity(source: str) -> list[Any]:
    """The model's name and, of a file, what changes when it is written again."""
    path = Path(source)
    if not path.is_file():
        return [source]
    return [source, path.stat().st_size, path.stat().st_mtime_ns]


def _title(source: str) -> str:
    """A short name for figures: of a checkpoint its folder and its own name."""
    path = Path(source)
    return f"{path.parent.name}/{path.stem}" if path.suffix == ".ckpt" else source


def _file_name(source: str) -> str:
    """A file's name for a model: letters, digits, dots, dashes and underlines."""
    text = str(source).removesuffix(".ckpt")
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text).strip("._") or "model"


def _read_record(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The numbers of an earlier call, if there are any and by the same settings."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    same = isinstance(record, dict) and record.get("settings") == json.loads(json.dumps(settings))
    return record if same else None


def _write_record(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(content, indent=1, default=_plain)
    write_atomically(path, lambda file: file.write(text.encode()))
    return json.loads(text)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.round(value.astype(float), 6).tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value).__name__)
