"""Reads formats with Pillow or its plug-ins, with the checks that Pillow does not make."""

import re
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spanets_runtime.decoding.decoded import (
    Decoded,
    Refused,
    check_size,
    orientation_of,
    read_whole,
)

_AS_PNG = "save it as PNG"
_MAX_HEAD = 2**16  # bytes; programs write comments of any length into a PPM
_FLOATS = "floating-point pixels have no fixed range; save it with 8 or 16 bits"


def read_other(file: BinaryIO, form: str, max_pixels: int) -> Decoded:
    """Decodes the first frame of a format that has no reader of its own.

    Raises:
        Refused: the image is too large, or the meaning of its pixels is uncertain.
    """
    if form == "HEIF":
        return _read_heif(file, max_pixels)
    head = _check_held(file, form, max_pixels)
    file.seek(0)
    with Image.open(file, formats=(form,)) as image:
        check_size(image.width, image.height, max_pixels, form)
        if image.mode == "F":
            raise Refused(_FLOATS)
        box = image.tile[0][1] if form == "GIF" and image.tile else None
        image.load()
        top = _largest_number(head) if form == "PPM" else _top_of(image)
        return Decoded(
            _opaque(image) if form == "BMP" else image,
            form,
            orientation_of(image),
            top=top,
            scaled=top not in (255, 65535),
            bits=top.bit_length(),
            hidden=_outside(image.size, box),
        )


def _check_held(file: BinaryIO, form: str, max_pixels: int) -> bytes:
    """Checks a file whose format is decoded from memory; returns the file's first bytes."""
    file.seek(0)
    if form not in ("WEBP", "AVIF", "JPEG2000"):
        return file.read(_MAX_HEAD)
    content = read_whole(file)
    if form == "WEBP":
        check_size(*_webp_size(content[:64]), max_pixels, form)
    if form == "JPEG2000":
        _check_components(content)
    return content[:_MAX_HEAD]


def _webp_size(head: bytes) -> tuple[int, int]:
    """Returns width and height of the canvas; opening the decoder allocates memory for it."""
    kind, body = head[12:16], head[20:]
    if kind == b"VP8X":
        return tuple(1 + int.from_bytes(body[i : i + 3], "little") for i in (4, 7))  # type: ignore[return-value]
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    sides = (int.from_bytes(body[i : i + 2], "little") & 0x3FFF for i in (6, 8))
    return tuple(sides)  # type: ignore[return-value]


def _check_components(content: bytes) -> None:
    """Refuses a JPEG 2000 image whose components Pillow decodes wrongly.

    For colours of more than 8 bits, Pillow turns white into black. It takes any fourth component
    for alpha, even near infrared.
    """
    start = content.find(b"\xff\x4f\xff\x51")
    size = content[start + 4 : start + 4 + 38 + 3 * 4] if start >= 0 else b""
    count = int.from_bytes(size[36:38], "big")
    bits = {1 + (byte & 0x7F) for byte in size[38 : 38 + 3 * count : 3]}
    if any(byte & 0x80 for byte in size[38 : 38 + 3 * count : 3]):
        raise Refused(f"a JPEG 2000 of numbers with a sign, which have no fixed range; {_AS_PNG}")
    if bits - {8} and not (count == 1 and max(bits) > 8):
        named = ", ".join(map(str, sorted(bits)))
        raise Refused(f"a JPEG 2000 of {count} components of {named} bits; {_AS_PNG}")
    header = content[:start]
    is_cmyk = re.search(rb"colr\x01..\0\0\0\x0c", header, re.DOTALL) is not None
    if count in (2, 4) and b"cdef" not in header and not is_cmyk:
        raise Refused(f"a JPEG 2000 of {count} components, not said to be alpha; {_AS_PNG}")


def _largest_number(head: bytes) -> int:
    """Returns the number that means white, or full colour, in an image of the PPM family.

    Raises:
        Refused: the header is too long.
    """
    words = re.sub(rb"#[^\n\r]*", b" ", head).split(maxsplit=4)
    if words[0] in (b"P1", b"P4"):
        return 1
    if len(words) < 4 or not words[3].isdigit():
        raise Refused("truncated or corrupt image (its header is not complete)")
    return max(1, int(words[3][:5]))


def _top_of(image: Image.Image) -> int:
    """Returns the number that means white in the image's Pillow mode."""
    return 0xFFFF if image.mode.startswith("I") else 255


def _outside(
    size: tuple[int, int], box: tuple[int, int, int, int] | None
) -> NDArray[np.bool_] | None:
    """Returns a mask (H, W) of the pixels outside the first frame of an animation, or None."""
    if box is None or box == (0, 0, *size):
        return None
    hidden = np.ones(size[::-1], bool)
    hidden[box[1] : box[3], box[0] : box[2]] = False
    return hidden


def _opaque(image: Image.Image) -> Image.Image:
    """Drops the alpha channel of a BMP file if it is all 0, because then it is not alpha."""
    has_none = image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)
    return image.convert("RGB") if has_none else image


def _read_heif(file: BinaryIO, max_pixels: int) -> Decoded:
    """Decodes HEIC with libheif, which already applies the orientation."""
    from pillow_heif import HeifImageFile

    read_whole(file)
    file.seek(0)
    with HeifImageFile(file) as image:
        check_size(image.width, image.height, max_pixels, "HEIF")
        image.load()
        return Decoded(image.copy(), "HEIF", top=_top_of(image))
