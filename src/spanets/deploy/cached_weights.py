"""`spanets weights`: published weights, which of them are in the cache, fetching and verifying."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from spanets.backbones.registry import own_models, sketch_model
from spanets.weights.digests import Fetched, read_record
from spanets.weights.fetching import Check, default_cache, fetch, verify
from spanets.weights.files import StateDict
from spanets.weights.pretrained import describe_unpublished, read_fitting, wanted
from spanets.weights.published import PUBLISHED, Release
from spanets_runtime.errors import UsageError, UserError, nearest


@dataclass(frozen=True)
class CachedWeights:
    """Published weights, and what is in the cache.

    Attributes:
        name: timm name with its tag.
        licence: Licence that the authors name, or None if they name none.
        url: Address of the file.
        path: Its place in the cache.
        state: "cached", "cached, not verified" (put there by timm or the user), "damaged record"
            or "not cached".
        size: Size in bytes, of the cached file or as published; None if unknown.
        sha256: Recorded or published SHA-256 in hexadecimal digits, or None.
        problem: Why fetching or verifying failed, or None.
    """

    name: str
    licence: str | None
    url: str
    path: str
    state: str
    size: int | None
    sha256: str | None
    problem: str | None = None

    @property
    def is_cached(self) -> bool:
        """Whether there is a file."""
        return self.state != NOT_CACHED

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


NOT_CACHED = "not cached"


def list_weights(words: Sequence[str] = ()) -> list[CachedWeights]:
    """Lists published weights, all by default; see `choose_releases`."""
    return [_look(release) for release in choose_releases(words)]


def fetch_weights(words: Sequence[str]) -> Iterator[CachedWeights]:
    """Fetches published weights that are not cached, and verifies those that are, one by one.

    Args:
        words: See `choose_releases`.

    Yields:
        Each one's state, with the problem if it failed.

    Raises:
        UsageError: see `choose_releases`.
    """
    for release in choose_releases(words):
        yield _try(release, fetch)


def verify_weights(words: Sequence[str] = ()) -> Iterator[CachedWeights]:
    """Recounts size and SHA-256 of cached weights, and checks keys, shapes and masks.

    Args:
        words: See `choose_releases`; by default all cached ones.

    Yields:
        Each one's state, with the problem if it failed.

    Raises:
        UsageError: see `choose_releases`.
    """
    for release in choose_releases(words):
        if words or _look(release).is_cached:
            yield _try(release, verify)


def choose_releases(words: Sequence[str]) -> list[Release]:
    """Returns published weights by names with or without a tag, or by shell patterns.

    Raises:
        UsageError: a word means none.
    """
    chosen: list[Release] = []
    for word in words:
        found = [r for r in PUBLISHED if fnmatchcase(r.model, word) or fnmatchcase(r.name, word)]
        if not found:
            raise UsageError(_describe_unknown(word))
        chosen += [release for release in found if release not in chosen]
    return chosen if words else list(PUBLISHED)


def _describe_unknown(word: str) -> str:
    if word in own_models():
        return describe_unpublished(word)
    names = [release.model for release in PUBLISHED]
    hint = nearest(word, [*names, *(release.name for release in PUBLISHED)])
    return f"no weights of {word!r} are published{hint or '; published are ' + ', '.join(names)}"


def _try(release: Release, act: Any) -> CachedWeights:
    try:
        act(wanted(release.url), default_cache(), _check_of(release))
    except UserError as error:
        return _look(release, str(error))
    return _look(release)


def _check_of(release: Release) -> Check[StateDict]:
    return partial(read_fitting, model=sketch_model(release.model))


def _look(release: Release, problem: str | None = None) -> CachedWeights:
    path = Path(default_cache(), release.file)
    record: Fetched | None = None
    try:
        record = read_record(path)
        state = "cached" if record else "cached, not verified"
    except UserError:
        state = "damaged record"
    size, sha256 = release.size, release.sha256
    if not path.is_file():
        state = NOT_CACHED
    else:
        size, sha256 = path.stat().st_size, record.sha256 if record else sha256
    return CachedWeights(
        release.name, release.licence, release.url, str(path), state, size, sha256, problem
    )
