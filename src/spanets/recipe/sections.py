"""The recipe sections that every task has: typed keys with defaults and ranges.

A task adds its own keys in a subclass. `check` validates values that depend on each other.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from spanets.recipe.keys import key
from spanets_runtime.errors import UsageError
from spanets_runtime.text import shorten

FROM_WEIGHTS = "left out or null with pretrained weights: as they were trained"


@dataclass
class Lora:
    """Low-rank adapters: the backbone is frozen, and small matrices beside its layers are trained.

    The classifier, or what else is not the backbone, is trained as well.
    """

    rank: int | None = key(
        None,
        "Rank of the adapters, such as 8; null leaves them out and trains the whole network.",
        between=(1, 1024),
    )
    alpha: float | None = key(
        None,
        "The adapters are multiplied by `alpha / rank`; null is the rank, a factor of 1.",
        between=(1e-3, 1e5),
    )
    targets: str = key(
        "*",
        "Layers with an adapter, as names or patterns separated by commas, such as "
        "`*.token_mixer.*`; of the linear layers and 1×1 convolutions of the backbone.",
    )
    kind: Literal["lora", "dora", "loha", "ia3"] = key(
        "lora", "Kind of adapters. ia3 learns one factor a channel, and has neither rank nor alpha."
    )

    @property
    def is_on(self) -> bool:
        """Whether there are adapters."""
        return self.rank is not None or self.kind == "ia3"

    def check(self) -> None:
        """Raises a UsageError for values that are allowed each, but not together."""
        if self.kind == "ia3" and (self.rank, self.alpha) != (None, None):
            name = "rank" if self.rank is not None else "alpha"
            raise UsageError(f"model.lora.{name} is set, but model.lora.kind ia3 has none")
        for name in ("kind", "alpha", "targets"):
            if not self.is_on and getattr(self, name) != getattr(Lora, name):
                raise UsageError(
                    f"model.lora.{name} is {shorten(str(getattr(self, name)))}, but there are no "
                    "adapters; add --model.lora.rank 8"
                )


@dataclass
class Model:
    """The model."""

    name: str = key(
        "spanet_nano", "Name of a timm model, perhaps with a tag: spanet_small.kist_in1k."
    )
    args: dict[str, Any] = key(
        {}, "Arguments of `timm.create_model`, such as `{drop_path_rate: 0.1}`."
    )
    pretrained: bool = key(
        False,
        "Start from the model's published weights, which are fetched once; see `spanets weights`.",
    )
    weights: str | None = key(
        None, "Initial weights, a file of ours or the authors'; null starts from scratch."
    )
    weights_ema: bool | None = key(
        None,
        "For a weights file that also holds an exponential moving average (EMA): true loads the "
        "average, false the other weights, null the file's main entry.",
    )
    freeze: str | None = key(
        None,
        "Modules that are not trained and stay in evaluation mode, as names or patterns separated "
        "by commas, such as `stem,stages.0`. `backbone` is all but the classifier, a linear probe.",
    )
    lora: Lora = field(default_factory=Lora)

    def check(self) -> None:
        """Raises a UsageError for values that are allowed each, but not together."""
        if self.pretrained and self.weights is not None:
            raise UsageError(
                "model.pretrained is true and model.weights is a file; leave one of them out"
            )
        self.lora.check()
        if self.lora.is_on and not self.pretrained and self.weights is None:
            raise UsageError(
                "model.lora adapts trained weights; add --model.pretrained true or --model.weights "
                "FILE"
            )
        if self.lora.is_on and self.freeze is not None:
            raise UsageError("model.lora freezes the backbone already; leave out model.freeze")


@dataclass
class Data:
    """The data set."""

    root: str | None = key(None, "Folder of the data set.")
    workers: int = key(2, "Worker processes that load images.", between=(0, 1024))

    def check(self) -> None:
        """Raises a UsageError for values that are allowed each, but not together."""


def mean_key(between: tuple[float, float] = (0, 1)) -> Any:
    """Declares the mean of pixel values, ImageNet's by default."""
    return key(
        (0.485, 0.456, 0.406),
        f"Mean of each channel, of pixel values in 0..1; {FROM_WEIGHTS}.",
        between=between,
        open=True,
    )


def std_key(between: tuple[float, float] = (0.001, 1000)) -> Any:
    """Declares the standard deviation of pixel values, ImageNet's by default."""
    return key(
        (0.229, 0.224, 0.225),
        f"Standard deviation of each channel, of pixel values in 0..1; {FROM_WEIGHTS}.",
        between=between,
        open=True,
    )


@dataclass
class DenseData(Data):
    """Images with boxes or masks, for detection and segmentation."""

    hflip: float = key(0.5, "Probability of a flip from left to right.", between=(0, 1))
    quarter_turns: bool = key(
        False,
        "Randomly turn by 0, 90, 180 or 270 degrees: for images without a preferred orientation, "
        "such as aerial images, microscopy or shapes.",
    )
    recolour: float = key(
        0.0,
        "Probability of strong colour augmentation: permuted channels, grayscale, inversion. For "
        "small data sets, whose colours a network would memorise.",
        between=(0, 1),
    )
    mean: tuple[float, float, float] = mean_key()
    std: tuple[float, float, float] = std_key()


@dataclass
class Optim:
    """Optimizer, schedule and loss."""

    name: str = key("adamw", "timm's name of the optimizer, such as adamw or lamb; or muon.")
    lr: float = key(
        1e-3,
        "Learning rate at `lr_batch_size`, or at any batch size if that is null.",
        between=(0, 1000),
    )
    lr_batch_size: int | None = key(
        None,
        "Batch size to which `lr` applies; `lr` is scaled linearly from it to `batch_size`. null "
        "does not scale.",
        between=(1, 2**20),
    )
    batch_size: int = key(
        32,
        "Images in one update, over all devices and accumulated batches.",
        between=(1, 2**20),
    )
    weight_decay: float = key(
        0.05, "Weight decay; none on biases and one-dimensional parameters.", between=(0, 100)
    )
    betas: tuple[float, float] = key(
        (0.9, 0.999), "The two β of Adam-like optimizers.", between=(0, 0.999999)
    )
    layer_decay: float | None = key(
        None,
        "Factor of the learning rate from each layer to the one before it; null is none.",
        between=(0.01, 1),
    )
    warmup_epochs: float = key(
        1, "Epochs of linear warm-up from `warmup_lr` to `lr`.", between=(0, 10**6)
    )
    warmup_lr: float = key(1e-6, "Learning rate at the start of the warm-up.", between=(0, 1000))
    min_lr: float = key(
        1e-5,
        "Learning rate at the end of the schedule; at most the peak.",
        between=(0, 1000),
    )
    cooldown_epochs: int = key(0, "Epochs at `min_lr` after `trainer.epochs`.", between=(0, 10**6))
    clip_grad: float | None = key(
        None, "Largest norm of the gradient; null does not clip.", between=(1e-9, 1e9)
    )
    label_smoothing: float = key(
        0.0, "Fraction of the target that is spread over all classes.", between=(0, 0.999)
    )
    ema_decay: float | None = key(
        None,
        "Decay of an exponential moving average of the weights, which is evaluated and saved "
        "instead of them; null keeps none.",
        between=(0, 0.999999),
    )

    def check(self) -> None:
        """Raises a UsageError for values that are allowed each, but not together."""

    @property
    def peak_lr(self) -> float:
        """Learning rate at `batch_size`, the highest of the schedule."""
        return self.lr * (self.batch_size / self.lr_batch_size if self.lr_batch_size else 1.0)

    def check_rates(self, given: Collection[str]) -> None:
        """Raises a UsageError if a given rate is above the peak, from which the rate should fall.

        Args:
            given: Dotted names of the keys to check. Others are lowered to the peak; see
                `rates_above`.
        """
        for name, value in self.rates_above().items():
            if f"optim.{name}" in given:
                raise UsageError(
                    f"optim.{name} is {value:g}, above the learning rate {self.peak_lr:g} "
                    "(optim.lr); lower the first or raise the second"
                )

    def rates_above(self) -> dict[str, float]:
        """Returns the rates of the schedule's ends that are above its peak, by name."""
        ends = {"warmup_lr": self.warmup_lr, "min_lr": self.min_lr}
        return {name: value for name, value in ends.items() if value > self.peak_lr}


@dataclass
class Trainer:
    """Duration, devices, precision, validation, checkpoints and logging."""

    epochs: int = key(
        20,
        "Passes over the training images, without `optim.cooldown_epochs`.",
        between=(1, 10**6),
    )
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = key(
        "auto", "Kind of device; auto takes a GPU if there is one."
    )
    devices: int | Literal["auto"] = key(
        "auto", "Number of devices of each machine; auto takes all.", between=(1, 1024)
    )
    num_nodes: int = key(1, "Number of machines.", between=(1, 2**16))
    threads: int | None = key(
        None,
        "CPU threads of the network in each process; null shares the cores among the processes. "
        "Fewer threads leave cores to `data.workers`.",
        between=(1, 1024),
    )
    strategy: Literal["auto", "ddp", "fsdp"] = key(
        "auto",
        "ddp keeps the whole model on each device; fsdp keeps a part of it, for models too large "
        "for one device. auto is ddp on several devices.",
    )
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "bf16-true"] = key(
        "32-true", "Lightning's precision of weights and arithmetic."
    )
    accumulate: int = key(
        1, "Batches whose gradients are accumulated for one update.", between=(1, 2**20)
    )
    channels_last: bool = key(True, "Use the channels-last memory layout for images and weights.")
    compile: bool = key(False, "Compile the model with torch.compile.")
    metric: str | None = key(
        None,
        "Validation metric that selects the best epoch, such as accuracy, f1 or loss; null is the "
        "task's own.",
    )
    patience: int | None = key(
        None,
        "Validations without a better `trainer.metric` after which the run stops early and reports "
        "its best epoch; null trains all epochs.",
        between=(1, 10**6),
    )
    val_every: int = key(1, "Epochs between validations.", between=(1, 10**6))
    save_every: int | None = key(
        None,
        "Updates between checkpoints within an epoch; null saves at the end of epochs only.",
        between=(1, 10**9),
    )
    logger: str = key(
        "tensorboard",
        "Lightning's logger, such as tensorboard, csv, wandb or mlflow, or none; metrics.csv is "
        "always written.",
    )
    logger_args: dict[str, Any] = key({}, "Arguments of the logger, such as `{project: cells}`.")


@dataclass
class Recipe:
    """The recipe of a run; each task has a subclass."""

    task: str = key("", "Name of the task; only a recipe file can set it, not the command line.")
    seed: int = key(
        0,
        "Random seed of initial weights, image order and augmentation.",
        between=(0, 2**32 - 1),
    )
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
