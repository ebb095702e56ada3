"""Options of predictions and evaluations; each task uses some of them."""

from dataclasses import dataclass
from pathlib import Path

from spanets_runtime.windows import Tiling


@dataclass(frozen=True)
class Views:
    """Views of an image whose results are combined: test-time augmentation.

    Attributes:
        scales: Factors of the size of the network's input; each also has a mirror image.
        corners: Whether the four corners and their mirror images are views as well.
    """

    scales: tuple[float, ...] = (1.0,)
    corners: bool = False

    def describe(self, how: str) -> str:
        """Returns a line such as "objects merged over 2 views: each image and its mirror image".

        Args:
            how: What is done with the results.
        """
        count = 2 * (len(self.scales) + 4 * self.corners)
        views = f"{how} over {count} views: each image and its mirror image"
        if self.scales != (1.0,):
            views += f", at scales {', '.join(f'{scale:g}' for scale in self.scales)}"
        return f"{views}; the same of its four corners" if self.corners else views


@dataclass(frozen=True, kw_only=True)
class TtaOptions:
    """Options of test-time augmentation.

    Attributes:
        tta: Whether to combine each image and its mirror image.
        tta_scales: Scales at which `tta` looks at the images; None means their own.
        tta_crops: Whether `tta` also looks at the images' four corners.
    """

    tta: bool = False
    tta_scales: tuple[float, ...] | None = None
    tta_crops: bool = False

    @property
    def views(self) -> Views | None:
        """The views to combine, or None for the image alone."""
        return Views(self.tta_scales or (1.0,), self.tta_crops) if self.tta else None


@dataclass(frozen=True)
class PredictOptions(TtaOptions):
    """Options of a prediction.

    Attributes:
        top: Number of classes to show for each image.
        out: Folder for pictures and files.
        min_score: Lowest score of the objects to show.
        annotations: COCO file whose image and category ids the output uses.
        calibrated: Whether to use the temperature in the checkpoint.
        tile: Tiles in which to predict, or None for whole images.
    """

    top: int = 5
    out: Path | None = None
    min_score: float = 0.5
    annotations: Path | None = None
    calibrated: bool = False
    tile: Tiling | None = None


@dataclass(frozen=True)
class EvalOptions(TtaOptions):
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
    score: float | None = None
    thresholds: bool = False
