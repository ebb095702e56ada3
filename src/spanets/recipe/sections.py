"""The sections that every task's recipe has: typed values with their ranges.

Each field's default is that of a plain run; recipes under `recipes/` change them. A task adds its
own keys by a subclass. `RANGES` holds the smallest and largest value of each number, both allowed,
of a list's every number.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

Ranges = Mapping[str, tuple[float, float]]


@dataclass
class Model:
    """The model.

    Attributes:
        name: timm name.
        args: Arguments of `timm.create_model`, such as `{drop_path_rate: 0.1}`.
        weights: File to start from, ours or the authors'; None starts from scratch.
        weights_ema: Of a file that also holds an exponential average of its weights: start from
            that (true) or from the others (false); None takes those in the file's main place.
    """

    RANGES: ClassVar[Ranges] = {}

    name: str = "spanet_nano"
    args: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    weights_ema: bool | None = None


@dataclass
class Data:
    """Where the images are.

    Attributes:
        root: The folder of the data set.
        workers: Processes that load images.
    """

    RANGES: ClassVar[Ranges] = {"workers": (0, 1024)}

    root: str | None = None
    workers: int = 2

    def check(self) -> None:
        """Raises a UsageError for values that are allowed each, but not together."""


@dataclass
class DenseData(Data):
    """What is done to images and to the boxes or masks on them, in detection and segmentation.

    Attributes:
        root, workers: As in `Data`.
        hflip: Probability of a flip from left to right.
        quarter_turns: Turn by 0, 90, 180 or 270 degrees, for images without an up: aerial ones,
            microscopy, shapes.
        recolour: Probability of colours far from the image's own: channels in another order, gray,
            inverted; for data sets of so few images that a network learns their colours.
        mean, std: Per channel, of pixel values in 0..1.
    """

    RANGES: ClassVar[Ranges] = {
        **Data.RANGES,
        "hflip": (0, 1),
        "recolour": (0, 1),
        "mean": (0, 1),
        "std": (0.001, 1000),
    }

    hflip: float = 0.5
    quarter_turns: bool = False
    recolour: float = 0.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


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

    RANGES: ClassVar[Ranges] = {
        "lr": (0, 1000),
        "lr_batch_size": (1, 2**20),
        "batch_size": (1, 2**20),
        "weight_decay": (0, 100),
        "betas": (0, 0.999999),
        "layer_decay": (0.01, 1),
        "warmup_epochs": (0, 10**6),
        "warmup_lr": (0, 1000),
        "min_lr": (0, 1000),
        "cooldown_epochs": (0, 10**6),
        "clip_grad": (1e-9, 1e9),
        "label_smoothing": (0, 0.999),
        "ema_decay": (0, 0.999999),
    }

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

    def check(self) -> None:
        """Raises a UsageError for values that are allowed each, but not together."""


@dataclass
class Trainer:
    """Where and how long.

    Attributes:
        epochs: Passes over the training images, the cool-down not counted.
        accelerator: "auto" takes a GPU if there is one.
        devices: Number of devices, or "auto" for all.
        num_nodes: Machines.
        threads: Of the network on a CPU, in each process; None shares the cores among the
            processes. What is less leaves cores to `data.workers`.
        strategy: "auto" is "ddp" on several devices: each holds the model. With "fsdp" they hold
            parts of it, for models too large for one.
        precision: Lightning's: "32-true", "16-mixed", "bf16-mixed", "bf16-true".
        accumulate: Batches whose gradients are added up for one update.
        channels_last: Memory layout of images and weights.
        compile: Compile the model with torch.compile.
        val_every: Epochs between validations.
        save_every: Updates between checkpoints within an epoch; None saves epochs alone.
        logger: Lightning's, such as "tensorboard", "csv", "wandb", "mlflow", or "none"; metrics.csv
            is kept beside it.
        logger_args: Its arguments, such as `{project: cells}`.
    """

    RANGES: ClassVar[Ranges] = {
        "epochs": (1, 10**6),
        "devices": (1, 1024),
        "num_nodes": (1, 2**16),
        "threads": (1, 1024),
        "accumulate": (1, 2**20),
        "val_every": (1, 10**6),
        "save_every": (1, 10**9),
    }

    epochs: int = 20
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: int | Literal["auto"] = "auto"
    num_nodes: int = 1
    threads: int | None = None
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "bf16-true"] = "32-true"
    accumulate: int = 1
    channels_last: bool = True
    compile: bool = False
    val_every: int = 1
    save_every: int | None = None
    logger: str = "tensorboard"
    logger_args: dict[str, Any] = field(default_factory=dict)


@dataclass
class Recipe:
    """A whole run; each task has its own, in its wing.

    Attributes:
        task: What is learnt.
        seed: Of initial weights, order of images and augmentation.
        model, data, optim, trainer: See there.
    """

    RANGES: ClassVar[Ranges] = {"seed": (0, 2**32 - 1)}

    task: str = ""
    seed: int = 0
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    trainer: Trainer = field(default_factory=Trainer)

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as plain nested values."""
        return _plain(asdict(self))


def _plain(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return values
