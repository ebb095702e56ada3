"""Stores measurements as JSON beside the figures, written atomically and reused later."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import spanets
from spanets.analysis.fourier import EPSILON
from spanets_runtime.files import write_atomically

CONVENTIONS = {
    "transform": "discrete, unnormalized; natural logarithm of modulus + epsilon",
    "epsilon": EPSILON,
    "origin": "spectra are centred: the origin at (H // 2, W // 2)",
    "order": "logarithm first, then the mean over channels, then over images",
    "frequency": "fraction of Nyquist, half a cycle a sample of the module's own map",
    "relative": "profile minus its value at the origin",
    "band": "95 % of the mean over images: 1.96 standard errors",
    "response": "norm of what comes out at ±(u, v) over the norm that went in, random weights on "
    "the channels, linearized at the first image",
    "impulse": "norm over output channels of the response to a pixel of 1, mean over input "
    "channels, linearized at the first image",
    "receptive_field": "gradient of the centre's sum over channels, magnitude summed over input "
    "channels, mean over images, largest value 1",
    "sensitivity": "x + s * epsilon * U: x with values from 0 to 1 before it is standardized, U a "
    "real wave of unit L2 norm, s a random sign for each image and channel, not clipped; "
    "frequencies in bins of the image",
    "bands": "ideal filters of x with values from 0 to 1 before it is standardized; radial "
    "cut-off as a fraction of the image's Nyquist, the cut-off kept by both, the mean of each "
    "channel kept by both, not clipped",
    "reliance": "cues suppressed in x with values from 0 to 1 before it is standardized, not "
    "clipped; relative: accuracy over that on whole images; conflict: frequencies up to the "
    "cut-off (a fraction of the image's Nyquist) of one image, the others of an image of another "
    "class, both ways for each pair; intervals: 95 %, percentile bootstrap over images or pairs",
    "answers": "right: 1 or 0 for each image; follows: for each pair twice, l (low), h (high) or n "
    "(neither), pairs in their random order",
    "reference": "labels: class folders; own prediction: the model's answer for the image itself",
    "change": "L2 norm of the change of the output over that of the output, mean over images",
}


class Record:
    """The numbers of one model in one folder.

    If the settings that all measurements share have changed, all earlier numbers are discarded.
    Each measurement also has its own settings.
    """

    def __init__(self, path: Path, common: Mapping[str, Any]) -> None:
        self.path = path.with_name(path.name + ".json")  # names may contain dots
        settings = json.loads(json.dumps({**common, "version": spanets.__version__}))
        content = _read(self.path)
        if content.get("settings") != settings:
            content = {}
        self.content = {
            "settings": settings,
            "measured": content.get("measured", {}),
            "conventions": CONVENTIONS,
            **content,
        }

    def has(self, name: str, settings: Mapping[str, Any]) -> bool:
        """Whether a measurement with these settings is stored."""
        return self.content["measured"].get(name) == json.loads(json.dumps(settings))

    def add(self, name: str, settings: Mapping[str, Any], numbers: Any) -> None:
        """Writes a measurement.

        Raises:
            ValueError: a number is not finite.
            UserError: the file cannot be written.
        """
        self.content["measured"][name] = settings
        self.content[key_of(name)] = numbers
        self.content = json.loads(_write(self.path, self.content))
        self.part(name, settings).drop()

    def read(self, what: Sequence[str]) -> dict[str, Any]:
        """Returns the record with only the requested measurements."""
        asked = {key_of(name) for name in what}
        others = {key_of(name) for name in self.content["measured"]} - asked
        return {key: value for key, value in self.content.items() if key not in others}

    def part(self, name: str, settings: Mapping[str, Any]) -> "Part":
        """Returns the storage of an unfinished measurement."""
        every = {**self.content["settings"], "measurement": settings}
        return Part(self.path.with_name(f"{self.path.stem}.{name}.part.json"), every)


class Part:
    """The saved state of an unfinished measurement, from which a later call resumes."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))

    def load(self) -> dict[str, Any] | None:
        """Returns the saved state if it has the same settings, else None."""
        content = _read(self.path)
        return content["state"] if content.get("settings") == self.settings else None

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes the state."""
        _write(self.path, {"settings": self.settings, "state": state})

    def drop(self) -> None:
        """Removes the state of a finished measurement."""
        self.path.unlink(missing_ok=True)


def key_of(name: str) -> str:
    """Returns a measurement's key in the record."""
    return name.replace("-", "_")


def digest(root: Path, paths: Sequence[Path]) -> str:
    """Returns a digest of a set of files, from their relative paths and sizes."""
    lines = "\n".join(f"{path.relative_to(root)} {_size_of(path)}" for path in paths)
    return hashlib.sha256(os.fsencode(lines)).hexdigest()[:16]


def _size_of(path: Path) -> int:
    """Returns a file's size, or -1 for a broken link; reading it will report the error."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def identity(source: str) -> list[Any]:
    """Returns the model's name, and values that change when the model may have changed.

    For a file, and the files of a folder, they are size and time. Nothing tells whether a function
    or a hub address gives the same weights again, so they get the time of this call.
    """
    path = Path(source)
    if path.is_dir():
        files = [path / name for name in ("config.json", "model.safetensors")]
    elif path.is_file():
        files = [path]
    elif ":" in source:
        return [source, datetime.now(UTC).isoformat()]
    else:
        return [source]
    stats = [file.stat() for file in files if file.is_file()]
    return [source, *(part for stat in stats for part in (stat.st_size, stat.st_mtime_ns))]


def file_name(source: str) -> str:
    """Returns a file name for a model: letters, digits, dots, dashes and underscores."""
    text = str(source).removesuffix(".ckpt")
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text).strip("._") or "model"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(content, indent=1, default=_plain, allow_nan=False)
    except ValueError as error:
        raise ValueError("gives numbers that are not finite; its weights may be broken") from error
    write_atomically(path, lambda file: file.write(text.encode()))
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.round(value.astype(float), 6).tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value).__name__)
