"""What a Hugging Face data set may read: files of its own.

A table may name any file as an image, a README.md any file or address as data, and what was saved
to disk any file as a table. None of them decides what is read here, for a data set mostly comes
from others.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.repocard import REGEX_YAML_BLOCK

from spanets.recipe.yaml_text import load_yaml
from spanets_runtime.errors import UserError

_MAX_BYTES = 2**22


def check_descriptions(root: Path) -> None:
    """Refuses a folder whose README.md, or what `save_to_disk` left, names files outside of it.

    Raises:
        UserError: one does, or is damaged.
    """
    # The header as `datasets` finds it, so that both read the same.
    if (text := _read(root / "README.md")) and (header := REGEX_YAML_BLOCK.search(text)):
        _check_places(_named_places(load_yaml(header[2], str(root / "README.md"))), root)
    if text := _read(root / ".huggingface.yaml"):
        _check_places(_named_places(load_yaml(text, str(root / ".huggingface.yaml"))), root)
    folders = [root]
    if text := _read(root / "dataset_dict.json"):
        parts = _strings(_load_json(text, root / "dataset_dict.json").get("splits"))
        folders = [check_inside(part, [root], str(root)) for part in parts]
    for folder in folders:
        if text := _read(folder / "state.json"):
            files = _load_json(text, folder / "state.json").get("_data_files")
            names = [file.get("filename") for file in files or [] if isinstance(file, dict)]
            _check_places((str(folder / name) for name in _strings(names)), root)


def _read(path: Path) -> str:
    """Returns a text, or nothing where there is no such file."""
    if not path.is_file():
        return ""
    try:
        content = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if content is None:
        raise UserError(f"{path}: has more than {_MAX_BYTES} bytes")
    return content.decode("utf-8", "replace")


def _load_json(text: str, path: Path) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error})") from None
    return values if isinstance(values, dict) else {}


def _named_places(values: Any) -> Iterator[str]:
    """Yields the files, folders and patterns that the configurations of a README name."""
    configurations = values.get("configs") if isinstance(values, dict) else None
    for one in configurations if isinstance(configurations, list) else []:
        if isinstance(one, dict):
            yield from _strings(one.get("data_files"))
            yield from _strings(one.get("data_dir"))


def _strings(values: Any) -> Iterator[str]:
    """Yields all texts in nested values, but for names of parts."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from () if key == "split" else _strings(value)
    elif isinstance(values, list):
        for value in values:
            yield from _strings(value)


def _check_places(places: Iterable[str], root: Path) -> None:
    for place in places:
        check_inside(place, [root], str(root))


def check_inside(place: str | Path, roots: Sequence[Path], origin: str) -> Path:
    """Returns the path of a file of a data set; one that is relative is below its first folder.

    Raises:
        UserError: it lies elsewhere, links followed; the message names `origin`.
    """
    if not (isinstance(place, str) and "://" in place):
        path = Path(roots[0], place)
        resolved = path.resolve()
        if any(resolved.is_relative_to(root.resolve()) for root in roots):
            return path
    raise UserError(
        f"{origin}: names {str(place)!r}, which lies outside of the data set; only its own files "
        "are read"
    )


def check_built(files: Any, start: str, origin: str) -> None:
    """Refuses files that a data set of the hub names elsewhere.

    Args:
        files: What the library found, by part.
        start: What addresses on the hub begin with.
        origin: The data set, for messages.

    Raises:
        UserError: one lies elsewhere.
    """
    for place in (str(place) for some in (files or {}).values() for place in some):
        if not place.startswith(start) or ".." in place.split("/"):
            raise UserError(f"{origin}: names {place!r}, which does not lie on the hub")
