"""The table of published ImageNet-1K weights: what the authors released, where, on what terms."""

from dataclasses import dataclass

TAG = "kist_in1k"
"""timm tag of the weights: who trained them (KIST), and on which data set."""

HOST = "https://github.com"

OWNER = "DoranLyong"

PAPERS = {
    "spanet": (
        "SPANet: Frequency-balancing Token Mixer using Spectral Pooling Aggregation Modulation",
        "arXiv:2308.11568",
    ),
    "spanetv2": ("Spectral-Adaptive Modulation Networks for Visual Perception", "arXiv:2503.23947"),
}
"""Title and identifier of each family's paper."""


@dataclass(frozen=True)
class Release:
    """One published file of weights, and where it is.

    Attributes:
        model: timm name of the model.
        repository: Name of the authors' repository, without its owner.
        release: Name of the release that holds the file.
        file: Name of the file.
        licence: Licence that the authors name, or None if they name none.
        size: Size in bytes, if known, for display; enforced only together with `sha256`.
        sha256: SHA-256 in hexadecimal digits, if known; then it is enforced.
        seen: Where these facts come from.
    """

    model: str
    repository: str
    release: str
    file: str
    licence: str | None
    seen: str
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """Name in timm, with the tag."""
        return f"{self.model}.{TAG}"

    @property
    def origin(self) -> str:
        """Address of the authors' repository."""
        return f"{HOST}/{OWNER}/{self.repository}"

    @property
    def path(self) -> str:
        """Path of the file below the owner's address, or below that of a mirror."""
        return f"{self.repository}/releases/download/{self.release}/{self.file}"

    @property
    def url(self) -> str:
        """Address of the file."""
        return f"{HOST}/{OWNER}/{self.path}"


def _first_family(model: str, file: str) -> Release:
    seen = "links and licence in the README of SPANet-official"
    return Release(model, "SPANet-official", "ImageNet-pretrained", file, "mit", seen)


PUBLISHED: tuple[Release, ...] = (
    _first_family("spanet_small", "spanet-small.pth"),
    _first_family("spanet_medium", "spanet-medium.pth"),
    _first_family("spanet_mediumx", "spanet-mediumX.pth"),
    _first_family("spanet_base", "spanet-base.pth"),
    _first_family("spanet_basex", "spanet-baseX.pth"),
    Release(
        "spanetv2_s18_pure",
        "SPANetV2-official",
        "ImageNet-1K",
        "spanetv2_s18_pure_res-scale_Full-ExSPAM.pth",
        licence=None,
        seen="a training log of SPANetV2-official, which shows the address and the size",
        size=116_857_189,
    ),
)
"""Every published file, in the order of the papers' tables."""


def release_of(model: str) -> Release | None:
    """Returns the published weights of a model, named without a tag; None if there are none."""
    return next((release for release in PUBLISHED if release.model == model), None)


def release_at(url: str) -> Release | None:
    """Returns the published weights at an address; None for any other address."""
    return next((release for release in PUBLISHED if release.url == url), None)


def nearest_published(model: str) -> str:
    """Returns the smallest model of the same family that has published weights.

    It is the nearest one: the models without weights are smaller, or its only relatives.
    """
    family = model.partition("_")[0]
    return next(r.model for r in PUBLISHED if r.model.partition("_")[0] == family)
