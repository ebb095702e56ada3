"""Knowledge distillation (Hinton et al., 2015): a model also learns from a trained teacher."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spanets.classification.recipe import Distill
from spanets.sources import Source, open_source
from spanets_runtime.errors import UsageError
from spanets_runtime.preprocessing import Preprocessing
from spanets_runtime.text import shorten


class Teacher:
    """A trained classifier that another one imitates; it never trains.

    It is no module, so that neither the optimizer nor a checkpoint of the run includes it.

    Args:
        source: The opened teacher.
        order: Index of each of the run's classes among the teacher's; None if it shares none.
        student: Preprocessing of the images that come in.
    """

    def __init__(self, source: Source, order: Sequence[int] | None, student: Preprocessing) -> None:
        self.network = source.network.eval().requires_grad_(False)
        self.order = None if order is None else list(order)
        own = source.preprocess
        mean, std, own_mean, own_std = (
            torch.tensor(values).view(-1, 1, 1)
            for values in (student.mean, student.std, own.mean, own.std)
        )
        # Pixels are images · std + mean; the teacher takes (pixels - own_mean) / own_std.
        self.scale = std / own_std
        self.shift = (mean - own_mean) / own_std

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns pooled features (B, C), and logits (B, classes) in the run's order or None."""
        # It stays in float32 where the student is bfloat16; its logits are what is to be learnt.
        images = images.to(next(self.network.parameters()).dtype)
        self.network.to(images.device)
        images = images * self.scale.to(images) + self.shift.to(images)
        maps = self.network.forward_features(images)  # type: ignore[operator]
        features = self.network.forward_head(maps, pre_logits=True)  # type: ignore[operator]
        if self.order is None:
            return features, None
        logits = self.network.forward_head(maps)  # type: ignore[operator]
        return features, logits[:, self.order]


def make_teacher(settings: Distill, classes: Sequence[str], student: Preprocessing) -> Teacher:
    """Opens the teacher of a recipe.

    Raises:
        UsageError: it is no timm classifier, or its classes are not those of the run.
        UserError: it cannot be read or fetched.
    """
    assert settings.teacher is not None
    source = open_teacher(settings.teacher)
    names = source.info.classes
    same = sorted(names) == sorted(classes)
    if settings.weight and not same:
        raise UsageError(
            f"distill.teacher {settings.teacher} has {len(names)} classes, such as "
            f"{shorten(', '.join(names[:3]), 60)}; they must be the {len(classes)} of the run "
            f"({shorten(', '.join(classes[:3]), 60)}). Fine-tune the teacher on these images, or "
            "set distill.weight 0 and distill.features 1 to imitate its features alone"
        )
    if source.preprocess.pixels != student.pixels:
        raise UsageError(
            f"distill.teacher {settings.teacher} reads other images than the run: data.channels, "
            "data.value_range and data.bands must be those it was trained with"
        )
    return Teacher(source, [names.index(name) for name in classes] if same else None, student)


def open_teacher(word: str) -> Source:
    """Opens a checkpoint, or a model by name with its published weights.

    Raises:
        UsageError: the model has no features and logits as timm's classifiers do.
    """
    source = open_source(word, pretrained=True)
    source.require_classifier()
    if not all(hasattr(source.network, name) for name in ("forward_features", "forward_head")):
        raise UsageError(f"distill.teacher {word} must be a timm classifier or its checkpoint")
    return source


def imitation_loss(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Returns T² KL(teacher ‖ student) of distributions softened by T, a mean over images.

    The factor T² keeps the size of the gradient (Hinton et al., 2015, section 2.1).

    Args:
        logits: The student's (B, classes).
        wanted: The teacher's (B, classes).
        temperature: T.
    """
    student, teacher = (x.float().div(temperature).log_softmax(1) for x in (logits, wanted))
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


class FeatureImitation(nn.Module):
    """The distance of pooled features to a teacher's, through a linear projection.

    Args:
        channels: Number of the student's pooled features.
        wanted: Number of the teacher's.
    """

    def __init__(self, channels: int, wanted: int) -> None:
        super().__init__()
        self.projection = nn.Linear(channels, wanted, bias=False)

    def forward(self, features: Tensor, wanted: Tensor) -> Tensor:
        """Returns 1 - the mean cosine similarity, from 0 to 2."""
        return 1 - F.cosine_similarity(self.projection(features), wanted, dim=1).mean()
