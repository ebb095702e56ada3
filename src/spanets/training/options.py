"""Options of predictions and evaluations; each task uses some of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spanets_runtime.windows import Tiling


@dataclass(frozen=True)
class PredictOptions:
    """Options of a prediction.

    Attributes:
        top: Number of classes to show for each image.
        out: Folder for pictures and files.
        min_score: Lowest score of the objects to show.
        annotations: COCO file whose image and category ids the output uses.
        tta: Whether to combine an image and its mirror image.
        calibrated: Whether to use the temperature in the checkpoint.
        tta_scales: Scales at which `tta` looks at the image; None means its own.
        tile: Tiles in which to predict, or None for whole images.
    """

    top: int = 5
    out: Path | None = None
    min_score: float = 0.5
    annotations: Path | None = None
    tta: bool = False
    calibrated: bool = False
    tta_scales: tuple[float, ...] | None = None
    tile: Tiling | None = None

    @property
    def scales(self) -> tuple[float, ...] | None:
        """The scales of the views to combine, or None for the image alone."""
        return (self.tta_scales or (1.0,)) if self.tta else None


@dataclass(frozen=True)
class EvalOptions:
    """Options of an evaluation.

    Attributes:
        root: The data set; None means the run's test part, or its validation part if it has no
            test part.
        layout: Layout of the data set, if the task knows several; None detects it.
        workers: Number of processes that load images.
        batch_size: Images in a batch; None means the task's `eval_batch`.
        trusted: Whether the checkpoint's recipe may choose the images; see `own_data`.
        errors: Folder for a page of mistakes, or None.
        calibrate: Whether to fit a temperature and store it in the checkpoint.
        precision: Precision for which a threshold is recommended, or None.
        tta: Whether to combine each image and its mirror image.
        tta_scales: Scales at which `tta` looks at the images; None means their own.
        score: Lowest score of the detections whose mistakes are counted; None means the
            recommended threshold.
        thresholds: Whether to choose the thresholds of labels and store them in the checkpoint.
    """

    root: str | None = None
    layout: str | None = None
    workers: int = 2
    batch_size: int | None = None
    trusted: bool = False
    errors: Path | None = None
    calibrate: bool = False
    precision: float | None = None
    tta: bool = False
    tta_scales: tuple[float, ...] | None = None
    score: float | None = None
    thresholds: bool = False

    @property
    def scales(self) -> tuple[float, ...] | None:
        """The scales of the views to combine, or None for the image alone."""
        return (self.tta_scales or (1.0,)) if self.tta else None


def describe_views(how: str, scales: Sequence[float]) -> str:
    """Returns a line about combined views, such as "objects merged over 2 views: ...".

    Args:
        how: What is done with the results.
        scales: Factors of the size of the network's input; each also has a mirror image.
    """
    views = f"{how} over {2 * len(scales)} views: each image and its mirror image"
    if tuple(scales) == (1.0,):
        return views
    return f"{views}, at scales {', '.join(f'{scale:g}' for scale in scales)}"
