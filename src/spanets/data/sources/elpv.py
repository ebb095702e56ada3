"""ELPV: electroluminescence images of 2,624 solar cells, functional or defective.

Images are 300 x 300 pixels, 8-bit gray, cut from 44 photovoltaic modules of mono- and
polycrystalline silicon. An expert graded each cell by a probability of defect: 0, 1/3, 2/3 or 1.
The images come with the pip package `elpv-dataset` (about 90 MB).

Source: Deitsch et al., "Automatic classification of defective photovoltaic module cells in
electroluminescence images", Solar Energy 185, 2019, pages 455-468. The images are licensed under
CC BY-NC-SA 4.0: attribution, no commercial use, share alike.
"""

import importlib.util
from pathlib import Path

from spanets.data.samples import Samples
from spanets.data.splits import stratified_split
from spanets_runtime.errors import UserError

CLASSES = ["functional", "defective"]


def load_elpv() -> Samples:
    """Lists the cells of the installed package, in the order of its label file.

    Returns:
        Samples with the label "defective" where the probability of defect is over a half, the
        targets [1 - probability, probability], and strata such as "0.333/mono".

    Raises:
        UserError: the package is not installed, or its label file is missing or damaged.
    """
    folder = _data_folder()
    try:
        rows = _read_labels(folder / "labels.csv")
    except (OSError, ValueError):
        raise UserError(
            f"{folder / 'labels.csv'}: missing or damaged; "
            "run: pip install --force-reinstall elpv-dataset"
        ) from None
    return Samples(
        images=[folder / name for name, _, _ in rows],
        labels=[int(probability > 0.5) for _, probability, _ in rows],
        classes=list(CLASSES),
        targets=[[1 - probability, probability] for _, probability, _ in rows],
        strata=[f"{probability:.3g}/{module}" for _, probability, module in rows],
    )


def elpv_splits(test_fraction: float = 0.25, seed: int = 0) -> dict[str, Samples]:
    """Splits the cells into "train" and "val", stratified by probability of defect and module type.

    The package has no official split, and does not say which cells come from the same module, so
    both parts may have cells of one module.

    Args:
        test_fraction: fraction of the cells in "val", between 0 and 1.
        seed: seed of the split.

    Raises:
        UserError: see `load_elpv`.
        ValueError: `test_fraction` is out of range.
    """
    samples = load_elpv()
    assert samples.strata is not None
    first, second = stratified_split(samples.strata, test_fraction, seed)
    return {"train": samples.subset(first), "val": samples.subset(second)}


def _data_folder() -> Path:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the ELPV solar cells are not installed; run: pip install elpv-dataset "
            "(licence of the images: CC BY-NC-SA 4.0, no commercial use)"
        )
    return Path(spec.submodule_search_locations[0], "data")


def _read_labels(path: Path) -> list[tuple[str, float, str]]:
    """Reads rows of file name, probability of defect and module type, separated by spaces."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return [(name, float(probability), module) for name, probability, module in rows]
