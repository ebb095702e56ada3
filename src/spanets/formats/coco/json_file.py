"""Reads JSON files of annotations, and recognises whose they are without reading them whole."""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Literal

from spanets.formats.coco.faults import Fault, show_value
from spanets_runtime.errors import UserError

Kind = Literal["coco", "labelme", "label_studio"]

# Bytes at both ends of a file that `sniff` looks at; an embedded image may lie between them.
_END = 2**16

_KEYS = re.compile(rb'"(shapes|imagePath|images|categories|annotations|completions|result)"\s*:')


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds keys.

    Raises:
        UserError: see `read_json`; or the file holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: the file holds no keys; it must have images and annotations")
    return content


def read_annotations(path: Path) -> dict[str, Any]:
    """Reads a JSON file of COCO; annotations by id, as in LIVECell, become a list in their order.

    Raises:
        UserError: see `read_object`; or an annotation has another id than its key.
    """
    content = read_object(path)
    if isinstance(found := content.get("annotations"), dict):
        content["annotations"] = [_with_id(path, key, entry) for key, entry in found.items()]
    return content


def _with_id(path: Path, key: str, entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry  # the reader reports it
    number = entry.get("id", int(key) if key.isdecimal() and len(key) < 16 else key)
    if str(number) != key:
        raise UserError(
            f"{path}: the annotation {show_value(key)} has the id {show_value(number)}; make them "
            "equal"
        )
    return {**entry, "id": number}


def read_json(path: Path) -> Any:
    """Reads a JSON file; a key that stands twice in one object is refused.

    Raises:
        UserError: the file is missing, cannot be read, or is not JSON.
    """
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):  # reading it might never end
            raise UserError(f"{path}: cannot be read (it is a pipe, no file)")
        return json.loads(path.read_bytes(), object_pairs_hook=_to_object)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path}: is not JSON ({where}: {error.msg})") from None
    except Fault as fault:
        raise UserError(f"{path}: {fault.problem}") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: is not JSON ({error})") from None


def sniff(path: Path) -> Kind | None:
    """Returns which format a JSON file seems to have, by the keys at its ends, or None."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with path.open("rb") as file:
            text = file.read(_END)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
            found = set(_KEYS.findall(text + b"\n" + file.read()))
    except OSError:
        return None
    if text.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
        return "label_studio" if found & {b"annotations", b"completions", b"result"} else None
    if b"shapes" in found:
        return "labelme"
    return "coco" if b"images" in found or b"categories" in found else None


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; raises a Fault if a key is repeated, as the last would win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise Fault(
            "key", f"the key {show_value(twice)} stands twice in one object; merge or rename it"
        )
    return found
