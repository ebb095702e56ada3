"""Darknet's files around YOLO's labels, as darknet and CVAT ("YOLO 1.1") write them.

    obj.data     classes = 2, train = data/train.txt, valid = data/valid.txt, names = data/obj.names
    obj.names    a class a line
    train.txt    an image a line, such as data/obj_train_data/a.jpg; its a.txt lies beside it

The paths are those of darknet's own folder; they are read within the data set.
"""

from pathlib import Path
from typing import Any

from spanets.data.class_lists import read_lines, read_names
from spanets_runtime.errors import UserError

NAMES = "obj.names"

_LISTS = {"train": ("train.txt",), "val": ("valid.txt", "val.txt"), "test": ("test.txt",)}


def find_darknet(path: Path) -> Path | None:
    """Returns obj.data or another file with its keys, or else obj.names beside train.txt."""
    if path.is_file():
        return path if path.suffix == ".data" and _is_config(path) else None
    files = [path / "obj.data", *sorted(path.glob("*.data"))]
    if (found := next((f for f in files if f.is_file() and _is_config(f)), None)) is not None:
        return found
    is_list = (path / NAMES).is_file() and (path / "train.txt").is_file()
    return path / NAMES if is_list else None


def read_darknet(config: Path) -> dict[str, Any]:
    """Returns the settings as data.yaml has them: "names", "nc", "train", "val" and "test".

    Raises:
        UserError: the list of classes is missing, or has not as many names as obj.data says.
    """
    folder = config.parent
    if config.name == NAMES:
        lists = {
            part: next((name for name in names if (folder / name).is_file()), None)
            for part, names in _LISTS.items()
        }
        return {"names": read_names(config).names, **lists}
    keys = _read_keys(config)
    own = folder / Path(keys["names"].replace("\\", "/")).name
    names = read_names(own).names
    if keys.get("classes", "").isdecimal() and int(keys["classes"]) != len(names):
        raise UserError(
            f"{config}: classes is {keys['classes']}, but {own.name} has {len(names)}; mend one"
        )
    return {
        "names": names,
        "train": keys.get("train"),
        "val": keys.get("valid"),
        "test": keys.get("test"),
    }


def _read_keys(config: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in read_lines(config) if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _is_config(path: Path) -> bool:
    try:
        keys = _read_keys(path)
    except UserError:
        return False
    return "names" in keys and bool(keys.keys() & {"train", "valid"})
