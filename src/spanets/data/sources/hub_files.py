"""Restricts a Hugging Face data set to its own files.

A data set may come from an untrusted source, and can name any file of this computer: a table as an
image, a README.md as data (also a URL), and a saved data set as a table. Such names are refused.
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
    """Refuses a folder whose README.md or `save_to_disk` files name files outside of it.

    Raises:
        UserError: a description names such a file, or is damaged.
    """
    # With the pattern that `datasets` uses, so that both read the same header.
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
    """Returns the text of a file, or "" if it does not exist."""
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
    """Yields all strings in nested values, except names of splits."""
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
    """Returns the path of a data set's file; a relative path starts at the first of `roots`.

    Raises:
        UserError: after following links it lies outside of `roots`; the message names `origin`.
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
    """Refuses a data set on the hub whose files lie elsewhere.

    Args:
        files: The data files that the library found, by split.
        start: Prefix of URLs on the hub.
        origin: Name of the data set, for messages.

    Raises:
        UserError: a file does not lie on the hub.
    """
    for place in (str(place) for some in (files or {}).values() for place in some):
        if not place.startswith(start) or ".." in place.split("/"):
            raise UserError(f"{origin}: names {place!r}, which does not lie on the hub")
