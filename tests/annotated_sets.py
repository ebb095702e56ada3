"""Writes one small annotated data set in each format, as the tools of that name write it."""

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["cat", "dog"]

# Part, image, width, height, and objects: class, box as x1, y1, x2, y2 and polygon.
SQUARE = [4.0, 6.0, 20.0, 6.0, 20.0, 26.0, 4.0, 26.0]
STAR = [30.5, 10.0, 50.0, 14.5, 44.0, 40.0, 33.0, 31.0]
IMAGES = [
    ("train", "a.png", 40, 30, [("cat", [4.0, 6.0, 20.0, 26.0], SQUARE)]),
    (
        "train",
        "b.png",
        64,
        48,
        [("dog", [30.5, 10.0, 50.0, 40.0], STAR), ("cat", [4.0, 6.0, 20.0, 26.0], SQUARE)],
    ),
    ("val", "c.png", 40, 30, [("dog", [0.0, 0.0, 40.0, 30.0], [0, 0, 40, 0, 40, 30, 0, 30])]),
    ("val", "d.png", 20, 20, []),
]


def picture(path: Path, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 30)).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def coco(root: Path, masks: bool = True) -> Path:
    for part in ("train", "val"):
        write_coco(root / "annotations" / f"instances_{part}2017.json", part, masks)
        for _, name, width, height, _ in of_part(part):
            picture(root / f"{part}2017" / name, width, height)
    return root


def of_part(part: str):
    return [row for row in IMAGES if row[0] == part]


def content_of(part: str, masks: bool = True, **names) -> dict:
    """COCO's object of a part, with ids that are not their places."""
    images, annotations = [], []
    for place, (_, name, width, height, objects) in enumerate(of_part(part)):
        number = 10 * place + (700 if part == "val" else 3)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for label, (x1, y1, x2, y2), polygon in objects:
            more = {"segmentation": [polygon]} if masks else {}
            annotations.append(
                {
                    "id": len(annotations) + number * 100,
                    "image_id": number,
                    "category_id": {"cat": 17, "dog": 4}[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    **more,
                }
            )
    categories = [{"id": 17, "name": "cat"}, {"id": 4, "name": "dog"}]
    return {"images": images, "categories": categories, "annotations": annotations, **names}


def write_coco(path: Path, part: str, masks: bool = True, **names) -> None:
    text(path, json.dumps(content_of(part, masks, **names)))


def roboflow(root: Path) -> Path:
    """Roboflow's COCO export: a category above all others, with the id 0."""
    for part, folder in (("train", "train"), ("val", "valid")):
        content = content_of(part)
        content["info"] = {"year": "2025", "description": "Exported from roboflow.com"}
        above = {"id": 0, "name": "animals", "supercategory": "none"}
        below = [{**c, "supercategory": "animals"} for c in content["categories"]]
        content["categories"] = [above, *below]
        text(root / folder / "_annotations.coco.json", json.dumps(content))
        for _, name, width, height, _ in of_part(part):
            picture(root / folder / name, width, height)
    return root


def yolo(root: Path, polygons: bool = False) -> Path:
    """Ultralytics' layout."""
    lines = ["path: ../datasets/animals  # dataset root dir", "train: images/train"]
    lines += ["val: images/val", "test:", "names:", "  0: cat", "  1: dog"]
    text(root / "data.yaml", "\n".join(lines))
    for part, name, width, height, objects in IMAGES:
        picture(root / "images" / part / name, width, height)
        rows = []
        for label, (x1, y1, x2, y2), polygon in objects:
            size = np.array([width, height])
            if polygons:
                values = (np.array(polygon).reshape(-1, 2) / size).ravel().tolist()
            else:
                centre = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height]
                values = [*centre, (x2 - x1) / width, (y2 - y1) / height]
            numbers = " ".join(f"{value:.6f}" for value in values)
            rows.append(f"{CLASSES.index(label)} {numbers}\n")
        if rows:
            text(root / "labels" / part / f"{Path(name).stem}.txt", "".join(rows))
    return root


def yolo_polygons(root: Path) -> Path:
    return yolo(root, polygons=True)


def darknet(root: Path) -> Path:
    """CVAT's "YOLO 1.1" and darknet's own layout: paths begin in darknet's folder."""
    lines = ["classes = 2", "train = data/train.txt", "valid = data/valid.txt"]
    text(root / "obj.data", "\n".join([*lines, "names = data/obj.names", "backup = backup/"]))
    text(root / "obj.names", "\n".join(CLASSES) + "\n")
    lists = {"train": [], "val": []}
    for part, name, width, height, objects in IMAGES:
        folder = root / f"obj_{part}_data"
        picture(folder / name, width, height)
        lists[part].append(f"data/obj_{part}_data/{name}\n")
        rows = ""
        for label, (x1, y1, x2, y2), _ in objects:
            values = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
            numbers = (*values, (x2 - x1) / width, (y2 - y1) / height)
            rows += f"{CLASSES.index(label)} " + " ".join(f"{v:.6f}" for v in numbers) + "\n"
        text(folder / f"{Path(name).stem}.txt", rows)
    text(root / "train.txt", "".join(lists["train"]))
    text(root / "valid.txt", "".join(lists["val"]))
    return root


def livecell(root: Path) -> Path:
    """LIVECell's COCO: annotations by id, images in a folder below images/."""
    for part in ("train", "val"):
        content = content_of(part)
        content["annotations"] = {str(a["id"]): a for a in content["annotations"]}
        text(root / f"annotations/LIVECell/livecell_coco_{part}.json", json.dumps(content))
        for _, name, width, height, _ in of_part(part):
            picture(root / "images/livecell_train_val_images" / name, width, height)
    return root


def cvat_video(root: Path) -> Path:
    """CVAT for video 1.1: a track over four frames of which the third is outside, and an empty one.

    Its polygon is SQUARE, moved by a pixel a frame.
    """
    shapes = ""
    for frame in range(4):
        picture(root / "images" / f"frame_{frame:06d}.png", 64, 48)
        points = ";".join(f"{x + frame:.2f},{y:.2f}" for x, y in np.reshape(SQUARE, (-1, 2)))
        shapes += (
            f'<polygon frame="{frame}" keyframe="{int(frame != 1)}" outside="{int(frame == 2)}" '
            f'occluded="0" points="{points}" z_order="0"></polygon>'
        )
    picture(root / "images" / "frame_000004.png", 64, 48)
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    text(
        root / "annotations.xml",
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task>'
        f"<labels>{labels}</labels><original_size><width>64</width><height>48</height>"
        "</original_size></task></meta>"
        f'<track id="7" label="cat" source="manual">{shapes}</track></annotations>\n',
    )
    return root


def dsb2018(root: Path) -> Path:
    """A folder an image with a mask an object; the test part has no masks."""
    for number, sizes in enumerate([(5, 9), (3,)]):
        item = root / "stage1_train" / f"{number}ab"
        picture(item / "images" / f"{number}ab.png", 30, 20)
        for index, size in enumerate(sizes):
            mask = np.zeros((20, 30), np.uint8)
            mask[2 : 2 + size, 4 : 4 + size] = 255
            save(item / "masks" / f"{index}.png", mask)
    picture(root / "stage1_test" / "9ab" / "images" / "9ab.png", 30, 20)
    return root


def voc(root: Path) -> Path:
    """labelImg's files in Pascal VOC's folders."""
    for _, name, width, height, objects in IMAGES:
        picture(root / "JPEGImages" / name, width, height)
        stem = Path(name).stem
        found = "".join(
            f"<object>\n\t\t<name>{label}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0"
            f"</truncated>\n\t\t<difficult>{int(label == 'dog')}</difficult>\n\t\t<bndbox>\n\t\t\t"
            f"<xmin>{x1 + 1:g}</xmin>\n\t\t\t<ymin>{y1 + 1:g}</ymin>\n\t\t\t<xmax>{x2:g}</xmax>\n"
            f"\t\t\t<ymax>{y2:g}</ymax>\n\t\t</bndbox>\n\t</object>"
            for label, (x1, y1, x2, y2), _ in objects
        )
        text(
            root / "Annotations" / f"{stem}.xml",
            f"<annotation>\n\t<folder>JPEGImages</folder>\n\t<filename>{name}</filename>\n\t<path>"
            f"C:\\me\\{name}</path>\n\t<source><database>Unknown</database></source>\n\t<size>\n"
            f"\t\t<width>{width}</width><height>{height}</height><depth>3</depth></size>\n\t"
            f"<segmented>0</segmented>\n\t{found}\n</annotation>\n",
        )
    for part in ("train", "val"):
        stems = [Path(row[1]).stem for row in of_part(part)]
        text(root / "ImageSets" / "Main" / f"{part}.txt", "\n".join(stems) + "\n")
    return root


def labelme(root: Path) -> Path:
    for part, name, width, height, objects in IMAGES:
        picture(root / part / name, width, height)
        content = {
            "version": "5.4.1",
            "flags": {},
            "shapes": [
                {
                    "label": label,
                    "points": np.array(polygon).reshape(-1, 2).tolist(),
                    "group_id": None,
                    "description": "",
                    "shape_type": "polygon",
                    "flags": {},
                    "mask": None,
                }
                for label, _, polygon in objects
            ],
            "imagePath": f"..\\images\\{name}",
            "imageData": base64.b64encode(bytes(50_000)).decode(),
            "imageHeight": height,
            "imageWidth": width,
        }
        text(root / part / f"{Path(name).stem}.json", json.dumps(content, indent=2))
    return root


def cvat(root: Path) -> Path:
    """CVAT for images 1.1, of a project with subsets."""
    images = []
    for number, (part, name, width, height, objects) in enumerate(IMAGES):
        picture(root / "images" / name, width, height)
        shapes = "".join(
            f'<polygon label="{label}" source="manual" occluded="0" z_order="0" points="'
            + ";".join(f"{x:.2f},{y:.2f}" for x, y in np.array(polygon).reshape(-1, 2))
            + '"><attribute name="fur">long</attribute></polygon>'
            for label, _, polygon in objects
        )
        subset = {"train": "Train", "val": "Validation"}[part]
        images.append(
            f'<image id="{number + 5}" name="{name}" subset="{subset}" task_id="1" '
            f'width="{width}" height="{height}">{shapes}</image>'
        )
    label = "<label><name>{}</name><color>#fa3253</color></label>"
    labels = "".join(map(label.format, CLASSES))
    meta = f"<meta><project><labels>{labels}</labels></project></meta>"
    text(
        root / "annotations.xml",
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
        f"{meta}{''.join(images)}</annotations>\n",
    )
    return root


def label_studio(root: Path) -> Path:
    """The JSON export, of a project with uploaded images."""
    tasks = []
    for number, (_, name, width, height, objects) in enumerate(IMAGES, start=21):
        picture(root / "images" / f"0a1b2c3d-{name}", width, height)
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        results = [
            {
                **size,
                "id": "x",
                "type": "polygonlabels",
                "from_name": "label",
                "to_name": "image",
                "origin": "manual",
                "value": {
                    "points": (np.array(polygon).reshape(-1, 2) / [width, height] * 100).tolist(),
                    "closed": True,
                    "polygonlabels": [label],
                },
            }
            for label, _, polygon in objects
        ]
        done = {"id": number, "completed_by": 1, "result": results, "was_cancelled": False}
        data = {"image": f"/data/upload/1/0a1b2c3d-{name}"}
        tasks.append({"id": number, "annotations": [done], "predictions": [], "data": data})
    text(root / "project-1-at-2025-01-01.json", json.dumps(tasks))
    return root


NUMBERS = {
    "train": [[[0, 0, 1], [1, 2, 255]], [[2, 2, 2], [0, 0, 0]]],
    "val": [[[1, 0, 2], [0, 0, 0]]],
}
NAMES = ["ground", "square", "disc"]
COLOURS = [(0, 0, 0), (128, 64, 128), (10, 200, 30)]


def mask_numbers():
    """Part, name and numbers (6, 9) of each mask: 0 to 2, and 255 to ignore."""
    for part, masks in NUMBERS.items():
        for index, rows in enumerate(masks):
            yield part, f"{part}{index}", np.kron(rows, np.ones((3, 3), int)).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def masks(root: Path) -> Path:
    for part, name, numbers in mask_numbers():
        picture(root / "images" / part / f"{name}.jpg", 9, 6)
        save(root / "masks" / part / f"{name}.png", numbers)
    text(root / "classes.txt", "\n".join(NAMES))
    return root


def coloured(root: Path, names: str = "labelmap.txt") -> Path:
    """Masks in colours; 255 is the colour of a line "ignore"."""
    colours = np.zeros((256, 3), np.uint8)
    colours[:3], colours[255] = COLOURS, (224, 224, 192)
    for part, name, numbers in mask_numbers():
        picture(root / "images" / part / f"{name}.jpg", 9, 6)
        save(root / "masks" / part / f"{name}.png", colours[numbers])
    rows = [*zip(NAMES, COLOURS, strict=True), ("ignore", (224, 224, 192))]
    if names == "labelmap.txt":
        lines = ["# label:color_rgb:parts:actions"]
        lines += [f"{name}:{r},{g},{b}::" for name, (r, g, b) in rows]
    elif names == "class_dict.csv":
        lines = ["name,r,g,b", *(f"{name},{r},{g},{b}" for name, (r, g, b) in rows)]
    else:
        lines = [f"{r} {g} {b}\t{name}" for name, (r, g, b) in rows]
    text(root / names, "\n".join(lines))
    return root


def voc_masks(root: Path) -> Path:
    """CVAT's "Segmentation mask 1.1" with images."""
    coloured(root)
    for part, name, _ in mask_numbers():
        (root / "JPEGImages").mkdir(exist_ok=True)
        (root / "SegmentationClass").mkdir(exist_ok=True)
        (root / "images" / part / f"{name}.jpg").rename(root / "JPEGImages" / f"{name}.jpg")
        (root / "masks" / part / f"{name}.png").rename(root / "SegmentationClass" / f"{name}.png")
    for part in ("train", "val"):
        stems = [name for of, name, _ in mask_numbers() if of == part]
        text(root / "ImageSets" / "Segmentation" / f"{part}.txt", "\n".join(stems))
    return root


def roboflow_masks(root: Path) -> Path:
    for part, name, numbers in mask_numbers():
        folder = root / {"train": "train", "val": "valid"}[part]
        picture(folder / f"{name}.jpg", 9, 6)
        save(folder / f"{name}_mask.png", np.where(numbers == 255, 0, numbers).astype(np.uint8))
        out = io.StringIO()
        rows = [("Pixel Value", " Class"), *((i, f" {name}") for i, name in enumerate(NAMES))]
        csv.writer(out).writerows(rows)
        text(folder / "_classes.csv", out.getvalue())
    return root


def cityscapes(root: Path) -> Path:
    ids = np.zeros(256, np.uint8)
    ids[:3] = 7, 8, 26  # road, sidewalk, car; 0 is unlabelled
    for part, name, numbers in mask_numbers():
        stem = f"aachen_{name}_000019"
        picture(root / "leftImg8bit" / part / "aachen" / f"{stem}_leftImg8bit.png", 9, 6)
        save(root / "gtFine" / part / "aachen" / f"{stem}_gtFine_labelIds.png", ids[numbers])
    return root


def ade20k(root: Path) -> Path:
    for part, name, numbers in mask_numbers():
        folder = {"train": "training", "val": "validation"}[part]
        picture(root / "images" / folder / f"{name}.jpg", 9, 6)
        stored = np.where(numbers == 255, 0, numbers + 1).astype(np.uint8)
        save(root / "annotations" / folder / f"{name}.png", stored)
    return root


def instances(root: Path) -> Path:
    """16-bit masks with one number an object, up to 700."""
    for part, name, numbers in mask_numbers():
        picture(root / "images" / part / f"{name}.jpg", 9, 6)
        stored = np.array([0, 1, 700], np.uint16)[np.where(numbers == 255, 0, numbers)]
        save(root / "masks" / part / f"{name}.png", stored)
    return root


OBJECTS = {
    f.__name__: f
    for f in (
        *(coco, roboflow, livecell, yolo, yolo_polygons, darknet),
        *(voc, labelme, cvat, label_studio),
    )
}
"""Makers of data sets with objects."""

MASKS = {f.__name__: f for f in (masks, coloured, voc_masks, roboflow_masks, cityscapes, ade20k)}
"""Makers of data sets with masks of classes."""
