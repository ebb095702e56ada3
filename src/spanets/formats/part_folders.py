"""The folders of a data set that are parts, and what lies beside them."""

import os
import re
from collections.abc import Iterable, Set
from pathlib import Path

from spanets.data.sources.parts import name_parts, part_of
from spanets.formats.coco.faults import Fault, show_value
from spanets_runtime.decoding.formats import IMAGE_SUFFIXES
from spanets_runtime.listing import list_entries

_KINDS = {".json": "JSON files", ".xml": "XML files"}


def name_part(name: str) -> str:
    """Returns the part that a folder or subset stands for: "train", "val", "test" or its name.

    Raises:
        Fault: the name is none for a folder.
    """
    if re.search(r"[/\\\0]", name) or name == "..":
        raise Fault("part", f"has the part {show_value(name)}, which is no name of a folder")
    return part_of(name) or (name if name not in ("", ".", "default") else "train")


def sort_parts(names: Iterable[str]) -> list[str]:
    """Returns part names, with train, val and test first."""
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(names, key=lambda name: (order.get(name, 3), name))


def part_folders(root: Path) -> dict[str, Path]:
    """Returns the folders of the root that are parts, by part, or the root as "train"."""
    names = (entry.name for entry in list_entries(root) if entry.is_dir())
    found = {str(part): root / name for part, name in name_parts(names, str(root)).items()}
    return found or {"train": root}


def describe_beside(
    root: Path, parts: Iterable[Path], suffixes: Set[str] = IMAGE_SUFFIXES
) -> list[str]:
    """Returns a note for each folder beside the parts of a folder, whose files are left out.

    Args:
        root: The folder.
        parts: Folders of the parts; none if the root itself is the only part.
        suffixes: Suffixes of the files to count.
    """
    used = set(parts)
    if root in used:
        return []
    counts: dict[str, list[str]] = {}
    for entry in list_entries(root):
        path = root / entry.name
        if path in used:
            continue
        inside = entry.is_dir()
        names = (name for *_, files in os.walk(path) for name in files) if inside else [entry.name]
        found = [name for name in names if Path(name).suffix.lower() in suffixes]
        counts.setdefault(f"in {entry.name}" if inside else "loose", []).extend(found)
    known, kind = ", ".join(sorted(path.name for path in used)), _KINDS.get(min(suffixes), "images")
    return [
        f"{root}: {len(found)} {kind} {where} beside {known}, in no part, left out "
        f"(first: {min(found)})"
        for where, found in counts.items()
        if found
    ]
