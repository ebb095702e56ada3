"""Decodes an annotated image, and checks its size against the annotations."""

from PIL import ExifTags, Image

from spanets.formats.coco.objects import CocoImage
from spanets_runtime.images import FORMATS, ImageError, load_image

# EXIF orientations that swap width and height.
_TURNED = (5, 6, 7, 8)


def load_checked(image: CocoImage) -> Image.Image:
    """Decodes an image and turns it upright.

    Raises:
        ImageError: it cannot be decoded, or its size differs from the annotations.
    """
    try:
        pixels = load_image(image.path)
    except ImageError as error:
        raise ImageError(f"{error}; remove or replace this file") from None
    if pixels.size != (image.width, image.height):
        raise ImageError(f"{image.path}: {_explain(image, pixels)}")
    return pixels


def _explain(image: CocoImage, pixels: Image.Image) -> str:
    """Explains why the size of an image differs from its annotations."""
    sizes = (
        f"has {pixels.width}x{pixels.height} pixels, its annotations are for "
        f"{image.width}x{image.height}"
    )
    if pixels.size != (image.height, image.width):
        return f"{sizes}; annotate this file, or scale the annotations to it"
    orientation = _orientation(image)
    if orientation in _TURNED:
        return (
            f"{sizes}: for the image before it is turned upright (EXIF orientation {orientation}); "
            "turn the annotations, or remove the orientation from the file"
        )
    return f"{sizes}: width and height are exchanged in one of them"


def _orientation(image: CocoImage) -> int:
    with Image.open(image.path, formats=FORMATS) as file:
        return file.getexif().get(ExifTags.Base.Orientation, 1)
