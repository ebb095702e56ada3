"""COCO's files in the layouts of COCO itself, Roboflow, CVAT and Label Studio.

annotations/instances_train2017.json   train2017/a.jpg         COCO
annotations/person_keypoints_train2017.json   train2017/a.jpg  COCO's people, with keypoints
annotations/instances_default.json     images/default/a.jpg    CVAT
train/_annotations.coco.json           train/a.jpg             Roboflow
result.json                            images/a.jpg            Label Studio
annotations/LIVECell/livecell_coco_train.json   images/livecell_train_val_images/a.tif    LIVECell
"""

import os
import re
from pathlib import Path
from typing import Any

from spanets.data.sources.parts import part_in
from spanets.formats.coco.faults import Fault, show_value
from spanets.formats.coco.json_file import read_annotations, sniff
from spanets.formats.coco.names import check_name
from spanets.formats.dataset import Dataset, Part
from spanets.formats.part_folders import describe_beside, name_part, part_folders, sort_parts
from spanets_runtime.errors import UserError

NAME = "COCO"
LOOKED_FOR = "annotations/*.json, or _annotations.coco.json or result.json beside images"

ANNOTATIONS = "annotations"
ROBOFLOW = "_annotations.coco.json"

# Annotations of the same images for other purposes.
_OTHERS = re.compile(r"(captions|panoptic|stuff|image_info)_")
_KEYPOINTS = "person_keypoints_"

# Number of file names by which the folder of the images is chosen.
_TRIED = 50


def detect(path: Path) -> bool:
    """Whether a folder, or a JSON file, has this format."""
    return bool(_find(path))


def read(path: Path, keypoints: bool = False) -> Dataset:
    """Reads a data set without checking it; see `coco.reader.check_coco`.

    Args:
        path: A folder, or a JSON file.
        keypoints: Whether files named for keypoints are read rather than those beside them; they
            list people only.

    Raises:
        UserError: a file is not JSON, or two files are for one part.
    """
    root = path if path.is_dir() else path.parent
    if path.is_file() and root.name == ANNOTATIONS:  # the images are beside it
        root = root.parent
    parts: dict[str, Part] = {}
    found = _find(path, keypoints)
    notes: list[str] = _describe_choice(found, _find(path, not keypoints))
    if found and found[0][1].name == ROBOFLOW:
        notes += describe_beside(root, [file.parent for _, file in found])
    for part, file in found:
        if part in parts:
            raise UserError(
                f"{root}: {parts[part].source} and {file} are both for {part}; remove one, or give "
                "the file itself"
            )
        content = read_annotations(file)
        _unite_names(content, file, notes)
        notes += drop_super_category(content, file)
        parts[part] = Part(content, _image_folder(content, root, file, part), file)
    return Dataset(NAME, root, {name: parts[name] for name in sort_parts(parts)}, tuple(notes))


def _describe_choice(found: list[tuple[str, Path]], others: list[tuple[str, Path]]) -> list[str]:
    """Says which files were read, if there are some for keypoints and some for all objects."""
    if not found or found == others:
        return []
    beside = f"not {others[0][1].name}" + (", …" if len(others) > 1 else "")
    return [f"{found[0][1].parent}: read {', '.join(file.name for _, file in found)}, {beside}"]


def drop_super_category(content: dict[str, Any], file: Path) -> list[str]:
    """Removes the category that Roboflow adds for the data set itself, and returns a note.

    It has the supercategory "none", is the supercategory of every other, and has no object.
    """
    categories: Any = content.get("categories")
    annotations: Any = content.get("annotations")
    lists = isinstance(categories, list) and isinstance(annotations, list)
    if not lists or not all(isinstance(c, dict) for c in (*categories, *annotations)):
        return []  # the reader reports it
    used = {str(a.get("category_id")) for a in annotations}
    for entry in categories:
        others = [c for c in categories if c is not entry]
        is_above = others and all(c.get("supercategory") == entry.get("name") for c in others)
        if entry.get("supercategory") == "none" and is_above and str(entry.get("id")) not in used:
            content["categories"] = others
            return [
                f"{file}: the category {show_value(entry.get('name'))} of Roboflow, above all "
                "others and without an object, is left out"
            ]
    return []


def _unite_names(content: dict[str, Any], file: Path, notes: list[str]) -> None:
    """Takes the part below a folder that Label Studio's names of its server stand for."""
    changed = 0
    for image in content.get("images") or []:
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str):
            continue
        last = re.split(r"[/\\]", name)[-1]
        try:
            check_name(name.replace("\\", "/"))
        except Fault:
            image["file_name"] = last
            changed += 1
    if changed:
        notes.append(
            f"{file}: {changed} file names lead outside of the folder; only their last part counts"
        )


def _find(path: Path, keypoints: bool = False) -> list[tuple[str, Path]]:
    """Returns the annotation files with their parts."""
    if path.is_file():
        is_coco = path.suffix == ".json" and sniff(path) == "coco"
        return [(_part_of(path, single=True), path)] if is_coco else []
    if not path.is_dir():
        return []
    exports = [
        (part, folder / ROBOFLOW)
        for part, folder in part_folders(path).items()
        if os.path.isfile(folder / ROBOFLOW)
    ]
    if exports:
        return exports
    for folder in (path / ANNOTATIONS, path, *_inner(path / ANNOTATIONS)):
        files = [file for file in sorted(folder.glob("*.json")) if not _OTHERS.match(file.name)]
        of_purpose = [f for f in files if f.name.startswith(_KEYPOINTS) == keypoints]
        files = [file for file in of_purpose or files if sniff(file) == "coco"]
        if files:
            return [(_part_of(file, single=len(files) == 1), file) for file in files]
    return []


def _inner(folder: Path) -> list[Path]:
    """Returns the folders of a folder, which need not exist."""
    return sorted(path for path in folder.glob("*") if path.is_dir())


def _part_of(file: Path, single: bool) -> str:
    return part_in(file.stem) or ("train" if single else name_part(file.stem))


def _image_folder(content: dict[str, Any], root: Path, file: Path, part: str) -> Path:
    """Returns the folder within the root that has most of the images."""
    own = re.sub("^(instances|annotations|person_keypoints)_", "", file.stem)
    folders = [root / own, root / "images" / own, root / part, root / "images" / part]
    folders += [root / "images", file.parent, root, root / own / "images"]
    folders += _inner(root / "images")
    images = [i for i in content.get("images") or [] if isinstance(i, dict)]
    names = [str(i.get("file_name")) for i in images[:: max(1, len(images) // _TRIED)]]

    def count(folder: Path) -> int:
        return sum(
            os.path.isfile(folder / name.replace("\\", "/")) for name in names if "\0" not in name
        )

    counts = [(count(folder), folder) for folder in folders]
    best = max(number for number, _ in counts)
    there = [folder for number, folder in counts if number == best and (best or folder.is_dir())]
    return there[0]
