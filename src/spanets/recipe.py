"""What a recipe can say: sections of typed values, read from YAML and the command line.

Each field's default is that of a plain run on a folder of images; recipes under `recipes/` change
them. Every key can be set on the command line: `--optim.lr 1e-3`.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from spanets.errors import UsageError, nearest, require


@dataclass
class Model:
    """The model.

    Attributes:
        name: timm name.
        args: Arguments of `timm.create_model`, such as `{drop_path_rate: 0.1}`.
        weights: File to start from, ours or the authors'; None starts from scratch.
    """

    name: str = "spanet_nano"
    args: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None


@dataclass
class Data:
    """Images, augmentation and preprocessing (timm's transforms and mixing).

    Attributes:
        source: "folder" (class folders under `root`) or "elpv".
        root: The folder; `train/` and `val/` in it, or classes to be split.
        val_fraction: Share of the images for validation where there is no `val/`.
        split_seed: Seed of that split.
        soft_targets: Train on the data set's probabilities instead of its labels (ELPV).
        image_size: Side of the square input, in pixels.
        crop_pct: Share of the image's side that evaluation crops.
        interpolation: Of evaluation: "bilinear" or "bicubic".
        train_interpolation: The same, or "random".
        mean, std: Per channel, of pixel values in 0..1.
        scale, ratio: Area and aspect ratio of the random crop.
        hflip, vflip: Probability of a flip.
        color_jitter: Strength of random brightness, contrast and saturation.
        auto_augment: timm's policy, such as "rand-m9-mstd0.5-inc1".
        random_erasing: Probability.
        erasing_mode: "const", "rand" or "pixel".
        mixup, cutmix: α of each; 0 leaves it out.
        mix_prob: Probability that a batch is mixed.
        mix_switch_prob: Probability of CutMix where both are on.
        mix_mode: "batch", "pair" or "elem".
        workers: Processes that load images.
    """

    source: Literal["folder", "elpv"] = "folder"
    root: str | None = None
    val_fraction: float = 0.25
    split_seed: int = 0
    soft_targets: bool = False
    image_size: int = 224
    crop_pct: float = 0.9
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    train_interpolation: Literal["random", "bilinear", "bicubic"] = "random"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    vflip: float = 0.0
    color_jitter: float = 0.0
    auto_augment: str | None = None
    random_erasing: float = 0.0
    erasing_mode: Literal["const", "rand", "pixel"] = "pixel"
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    mix_switch_prob: float = 0.5
    mix_mode: Literal["batch", "pair", "elem"] = "batch"
    workers: int = 2


@dataclass
class Optim:
    """Optimizer, schedule and loss.

    Attributes:
        name: timm's name, such as "adamw" or "lamb".
        lr: Learning rate at `lr_batch_size`, or at any batch size where that is None.
        lr_batch_size: Scale lr linearly from this batch size to `batch_size`.
        batch_size: Images for one update, over all devices and accumulated batches.
        weight_decay: Not on biases and one-dimensional parameters.
        betas: Of Adam-like optimizers.
        layer_decay: Factor of the learning rate from each layer to the one before it.
        warmup_epochs: Linear warm-up from `warmup_lr`.
        warmup_lr: Where the warm-up starts.
        min_lr: Where the cosine ends.
        cooldown_epochs: Epochs at `min_lr` after it.
        clip_grad: Largest norm of the gradient.
        label_smoothing: Share of the target that is spread over all classes.
        ema_decay: Average the weights exponentially; evaluated and saved in their place.
    """

    name: str = "adamw"
    lr: float = 1e-3
    lr_batch_size: int | None = None
    batch_size: int = 32
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    layer_decay: float | None = None
    warmup_epochs: float = 1
    warmup_lr: float = 1e-6
    min_lr: float = 1e-5
    cooldown_epochs: int = 0
    clip_grad: float | None = None
    label_smoothing: float = 0.0
    ema_decay: float | None = None


@dataclass
class Trainer:
    """Where and how long.

    Attributes:
        epochs: Passes over the training images, the cool-down not counted.
        accelerator: Lightning's: "auto", "cpu", "gpu", "mps".
        devices: Number of devices, or "auto" for all.
        num_nodes: Machines.
        precision: Lightning's: "32-true", "16-mixed", "bf16-mixed", "bf16-true".
        accumulate: Batches whose gradients are added up for one update.
        channels_last: Memory layout of images and weights.
        compile: Compile the model with torch.compile.
        val_every: Epochs between validations.
    """

    epochs: int = 20
    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "bf16-true"] = "32-true"
    accumulate: int = 1
    channels_last: bool = True
    compile: bool = False
    val_every: int = 1


@dataclass
class Recipe:
    """A whole run.

    Attributes:
        task: "classification".
        seed: Of initial weights, order of images and augmentation.
        model, data, optim, trainer: See there.
    """

    task: Literal["classification"] = "classification"
    seed: int = 0
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    trainer: Trainer = field(default_factory=Trainer)

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as plain nested values."""
        return _plain(asdict(self))


def list_recipes() -> list[str]:
    """Returns the names of the recipes that come with the package."""
    root = resources.files("spanets") / "recipes"
    with resources.as_file(root) as folder:
        files = sorted(folder.rglob("*.yaml"))
        return [path.relative_to(folder).with_suffix("").as_posix() for path in files]


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe by name or path, and sets the keys given on the command line.

    Args:
        name: A name of `list_recipes`, or a YAML file.
        overrides: Command-line words: `["--optim.lr", "1e-3", "--trainer.epochs=5"]`.

    Raises:
        UsageError: an unknown recipe, key or value, with the nearest right name.
    """
    return parse_recipe(_read(name), overrides, origin=name)


def parse_recipe(
    values: Mapping[str, Any], overrides: Sequence[str] = (), origin: str = "recipe"
) -> Recipe:
    """Builds a recipe from nested values and command-line words.

    Raises:
        UsageError: an unknown key, or a value of another type.
    """
    _check_keys(_flatten(values), origin)
    words = _split_words(overrides)
    _check_keys({key: None for key in words}, "command line")
    jsonargparse = require("jsonargparse", "train")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe)
    try:
        config = parser.parse_object(_plain(values))
        arguments = [word for key, value in words.items() for word in (f"--{key}", value)]
        config = parser.parse_args(arguments, namespace=config)
        recipe = Recipe(**parser.instantiate(config))
    except jsonargparse.ArgumentError as error:
        raise UsageError(f"{origin}: {_explain(str(error), _flatten(values) | words)}") from None
    _check_ranges(recipe)
    return recipe


def _read(name: str) -> dict[str, Any]:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        text = _read_text(path)
    elif name in list_recipes():
        text = (resources.files("spanets") / "recipes" / f"{name}.yaml").read_text()
    else:
        known = ", ".join(list_recipes())
        raise UsageError(
            f"unknown recipe {name!r}{nearest(name, list_recipes())} (known: {known}; or a .yaml file)"
        )
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{name}: holds no keys; see `spanets train elpv --print-recipe`")
    base = values.pop("extends", None)
    return values if base is None else _merge(_read_base(base, name), values)


def _read_base(base: Any, name: str) -> dict[str, Any]:
    # Only recipes of the package can be extended, and those end somewhere: no loops.
    if base not in list_recipes() or base == name:
        hint = nearest(str(base), list_recipes())
        raise UsageError(f"{name}: extends is {base!r}, must be a recipe of the package{hint}")
    return _read(base)


def _merge(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of `values` over those of `base`, key by key."""
    merged = dict(base)
    for key, value in values.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = {**base[key], **value} if both else value
    return merged


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None


def known_keys() -> dict[str, type]:
    """Returns every key of a recipe in dotted form, with its type."""
    keys: dict[str, type] = {}
    for part in dataclasses.fields(Recipe):
        if dataclasses.is_dataclass(part.type):
            keys |= {f"{part.name}.{key.name}": key.type for key in dataclasses.fields(part.type)}  # type: ignore[misc]
        else:
            keys[part.name] = part.type  # type: ignore[assignment]
    return keys


def _flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and not any(known == key for known in known_keys()):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[str(key)] = value
    return flat


def _check_keys(flat: Mapping[str, Any], origin: str) -> None:
    known = known_keys()
    for key in flat:
        # model.args holds the model's own keys.
        if key not in known and not key.startswith("model.args."):
            # A key given without its section is the likeliest slip.
            tail = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
            close = tail or get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"{origin}: unknown key {key!r}{hint}")


def _split_words(words: Sequence[str]) -> dict[str, str]:
    """Pairs `--key value` and `--key=value`; a flag without a value is an error."""
    pairs: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"unexpected argument {word!r}; keys are given as --key VALUE")
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            if not rest:
                raise UsageError(f"--{key} needs a value")
            value = rest.pop(0)
        pairs[key.replace("-", "_")] = value
    return pairs


def _check_ranges(recipe: Recipe) -> None:
    ranges: dict[str, tuple[float, float, float]] = {
        "data.image_size": (recipe.data.image_size, 1, 4096),
        "data.val_fraction": (recipe.data.val_fraction, 0.001, 0.999),
        "data.crop_pct": (recipe.data.crop_pct, 0.01, 1),
        "data.workers": (recipe.data.workers, 0, 1024),
        "optim.batch_size": (recipe.optim.batch_size, 1, 2**20),
        "optim.lr": (recipe.optim.lr, 0, 1e3),
        "optim.label_smoothing": (recipe.optim.label_smoothing, 0, 0.999),
        "trainer.epochs": (recipe.trainer.epochs, 1, 10**6),
        "trainer.accumulate": (recipe.trainer.accumulate, 1, 2**20),
        "trainer.val_every": (recipe.trainer.val_every, 1, 10**6),
        "seed": (recipe.seed, 0, 2**32 - 1),
    }
    for key, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise UsageError(f"{key} is {value}, allowed: {low} to {high}")


def _explain(message: str, given: Mapping[str, Any]) -> str:
    """One line for jsonargparse's several: the key, its value, and what is allowed."""
    keys = known_keys()
    found = [key for key in given if re.search(rf"\b{re.escape(key)}\b", message) and key in keys]
    if not found:
        return " ".join(message.split())
    key = found[0]
    choices = [str(choice) for choice in get_args(keys[key])]
    if get_origin(keys[key]) is Literal:
        hint = nearest(str(given[key]), choices)
        return f"{key} is {given[key]!r}, allowed: {', '.join(choices)}{hint}"
    wanted = getattr(keys[key], "__name__", str(keys[key]))
    wanted = wanted if get_origin(keys[key]) is None else str(keys[key])
    return f"{key} is {given[key]!r}, must be {wanted.replace('NoneType', 'null')}"


def _plain(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return values
