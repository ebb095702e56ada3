"""What a recipe can say: sections of typed values, read from YAML and the command line.

Each field's default is that of a plain run on a folder of images; recipes under `recipes/` change
them. Every key can be set on the command line: `--optim.lr 1e-3`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_type_hints

from spanets.values import convert, describe_wanted, load_yaml, read_word
from spanets_runtime.errors import UsageError, nearest


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
        accelerator: "auto" takes a GPU if there is one.
        devices: Number of devices, or "auto" for all.
        num_nodes: Machines.
        precision: Lightning's: "32-true", "16-mixed", "bf16-mixed", "bf16-true".
        accumulate: Batches whose gradients are added up for one update.
        channels_last: Memory layout of images and weights.
        compile: Compile the model with torch.compile.
        val_every: Epochs between validations.
    """

    epochs: int = 20
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: int | Literal["auto"] = "auto"
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


# Smallest and largest value, both allowed; of a list's every number.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "data.val_fraction": (0.001, 0.999),
    "data.split_seed": (0, 2**32 - 1),
    "data.image_size": (1, 4096),
    "data.crop_pct": (0.01, 1),
    "data.mean": (0, 1),
    "data.std": (0.001, 1000),
    "data.scale": (0.0001, 1),
    "data.ratio": (0.01, 100),
    "data.hflip": (0, 1),
    "data.vflip": (0, 1),
    "data.color_jitter": (0, 1),
    "data.random_erasing": (0, 1),
    "data.mixup": (0, 100),
    "data.cutmix": (0, 100),
    "data.mix_prob": (0, 1),
    "data.mix_switch_prob": (0, 1),
    "data.workers": (0, 1024),
    "optim.lr": (0, 1000),
    "optim.lr_batch_size": (1, 2**20),
    "optim.batch_size": (1, 2**20),
    "optim.weight_decay": (0, 100),
    "optim.betas": (0, 0.999999),
    "optim.layer_decay": (0.01, 1),
    "optim.warmup_epochs": (0, 10**6),
    "optim.warmup_lr": (0, 1000),
    "optim.min_lr": (0, 1000),
    "optim.cooldown_epochs": (0, 10**6),
    "optim.clip_grad": (1e-9, 1e9),
    "optim.label_smoothing": (0, 0.999),
    "optim.ema_decay": (0, 0.999999),
    "trainer.epochs": (1, 10**6),
    "trainer.devices": (1, 1024),
    "trainer.num_nodes": (1, 2**16),
    "trainer.accumulate": (1, 2**20),
    "trainer.val_every": (1, 10**6),
}


def list_recipes() -> list[str]:
    """Returns the names of the recipes that come with the package."""
    with resources.as_file(resources.files("spanets") / "recipes") as folder:
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
    values: Mapping[Any, Any], overrides: Sequence[str] = (), origin: str = "recipe"
) -> Recipe:
    """Builds a recipe from nested values and command-line words, which come last.

    Args:
        values: As in a YAML file; what is left out has its default.
        overrides: Command-line words, as for `load_recipe`.
        origin: Where the values are from, for messages.

    Raises:
        UsageError: an unknown key, or a value of another type or out of range.
    """
    recipe = Recipe()
    for key, value in _flatten(values, origin):
        _set(recipe, key, [value], f"{origin}: ")
    for key, text in _pair_words(overrides):
        _set(recipe, key, read_word(text), "--")
    _check_ranges(recipe)
    return recipe


def _read(name: str) -> dict[Any, Any]:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        text = _read_text(path)
    elif name in list_recipes():
        text = (resources.files("spanets") / "recipes" / f"{name}.yaml").read_text("utf-8")
    else:
        hint = nearest(name, list_recipes())
        known = ", ".join(list_recipes())
        raise UsageError(f"unknown recipe {name!r}{hint} (known: {known}; or a .yaml file)")
    values = load_yaml(text, name)
    if not isinstance(values, dict):
        raise UsageError(f"{name}: holds no keys; see `spanets train elpv --print-recipe`")
    base = values.pop("extends", None)
    return values if base is None else _merge(_read_base(base, name), values)


def _read_base(base: Any, name: str) -> dict[Any, Any]:
    # Only recipes of the package can be extended, and those end somewhere: no loops.
    if base not in list_recipes() or base == name:
        hint = nearest(str(base), list_recipes())
        raise UsageError(f"{name}: extends is {base!r}, must be a recipe of the package{hint}")
    return _read(base)


def _merge(base: Mapping[Any, Any], values: Mapping[Any, Any]) -> dict[Any, Any]:
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
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not a text file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def _flatten(values: Mapping[Any, Any], origin: str) -> Iterator[tuple[str, Any]]:
    """Yields dotted keys with their values: those of a section, and those of no section."""
    sections = {name for name, kind in get_type_hints(Recipe).items() if is_dataclass(kind)}
    for key, value in values.items():
        if key not in sections:
            yield str(key), value
        elif isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", inner_value) for inner, inner_value in value.items())
        else:
            raise UsageError(
                f"{origin}: {key} is {value!r}, must hold keys, as in the other recipes"
            )


def _pair_words(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields the keys and texts of `--key value` and `--key=value`."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"unexpected argument {word!r}; keys are given as --key VALUE")
        key, equals, value = word.removeprefix("--").partition("=")
        key = key.replace("-", "_")
        _check_key(key, "--")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"--{key} needs a value")
            value = rest.pop(0)
        yield key, value


@cache
def known_keys() -> dict[str, Any]:
    """Returns every key of a recipe in dotted form, with its type."""
    keys: dict[str, Any] = {}
    for name, kind in get_type_hints(Recipe).items():
        if is_dataclass(kind):
            keys |= {f"{name}.{key}": inner for key, inner in get_type_hints(kind).items()}
        else:
            keys[name] = kind
    return keys


def _check_key(key: str, where: str) -> None:
    known = known_keys()
    # model.args holds the model's own keys.
    if key in known or key.startswith("model.args."):
        return
    # A key given without its section, or with a wrong one, is the likeliest slip.
    tail = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    close = tail or get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"{where}{key}: unknown key{hint}")


def _set(recipe: Recipe, key: str, readings: Sequence[Any], where: str) -> None:
    """Sets a key to the first reading that has its type."""
    _check_key(key, where)
    if key.startswith("model.args."):
        recipe.model.args[key.removeprefix("model.args.")] = readings[0]
        return
    wanted = known_keys()[key]
    section, _, name = key.rpartition(".")
    for value in readings:
        try:
            converted = convert(value, wanted)
        except TypeError:
            continue
        setattr(getattr(recipe, section) if section else recipe, name, converted)
        return
    raise UsageError(f"{where}{key} is {readings[-1]!r}, {describe_wanted(readings[-1], wanted)}")


def _check_ranges(recipe: Recipe) -> None:
    for key, (low, high) in RANGES.items():
        section, _, name = key.rpartition(".")
        value = getattr(getattr(recipe, section) if section else recipe, name)
        numbers = value if isinstance(value, tuple) else (value,)
        for number in numbers:
            if isinstance(number, int | float) and not low <= number <= high:
                raise UsageError(f"{key} is {number}, allowed: {low} to {high}")
    for key, (first, second) in (("scale", recipe.data.scale), ("ratio", recipe.data.ratio)):
        if first > second:
            raise UsageError(f"data.{key} is [{first}, {second}], the first must be the smaller")


def _plain(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return values
