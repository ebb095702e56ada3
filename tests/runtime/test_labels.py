"""Numbers of masks as they are stored: every bit depth, container and way to write them."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spanets_runtime.images import ImageError
from spanets_runtime.labels import load_labels, read_labels

GRAY, RGB, PALETTE, GRAY_ALPHA = 0, 2, 3, 4

# Of the seven passes of an interlaced PNG: first row and column, steps of both.
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
PASSES = (*PASSES, (1, 0, 2, 1))


def png(numbers: np.ndarray, depth: int, colour: int = GRAY, interlaced: bool = False) -> bytes:
    """Writes a PNG by its specification; `numbers` are (H, W) or (H, W, channels)."""
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    rows = b"".join(
        b"\0" + pack(row, depth)
        for top, left, down, right in passes
        if (part := numbers[top::down, left::right]).size
        for row in part.reshape(len(part), -1)
    )
    height, width = numbers.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    palette = chunk(b"PLTE", bytes(range(256)) * 3) if colour == PALETTE else b""
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + data + chunk(b"IEND", b"")


def pack(row: np.ndarray, depth: int) -> bytes:
    """Packs samples, the first into the highest bits."""
    bits = (row.astype(np.int64)[:, None] >> np.arange(depth)[::-1]) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def tiff(numbers: np.ndarray, depth: int, photometric: int = 1) -> bytes:
    """Writes an uncompressed TIFF of one strip by its specification."""
    height, width = numbers.shape
    data = b"".join(pack(row, depth) for row in numbers)
    if depth == 16:
        data = numbers.astype("<u2").tobytes()
    tags = {256: width, 257: height, 258: depth, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    ifd = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + ifd


@st.composite
def variants(draw):
    """A depth, and numbers of up to it."""
    depth = draw(st.sampled_from([1, 2, 4, 8, 16]))
    height, width = draw(st.integers(1, 19)), draw(st.integers(1, 19))
    seed = draw(st.integers(0, 2**32 - 1))
    top = draw(st.sampled_from([1, 2**depth - 1]))
    return depth, np.random.default_rng(seed).integers(0, top, (height, width), endpoint=True)


@given(variants(), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_png_of_any_depth(tmp_path_factory, variant, interlaced, has_palette):
    depth, numbers = variant
    colour = PALETTE if has_palette and depth <= 8 else GRAY
    path = tmp_path_factory.mktemp("png") / "mask.png"
    path.write_bytes(png(numbers, depth, colour, interlaced))
    found = read_labels(path)
    assert found.numbers.dtype == np.uint16
    assert (found.numbers == numbers).all()
    assert (found.palette is not None) == (colour == PALETTE)


@pytest.mark.parametrize(
    ("depth", "photometric"),
    [*((depth, 1) for depth in (1, 2, 4, 8, 12, 16)), *((depth, 0) for depth in (2, 4, 8, 16))],
)
def test_tiff_of_any_depth(tmp_path, depth, photometric):
    """White may be 0: the numbers are those that are stored."""
    numbers = np.random.default_rng(0).integers(0, 2**depth, (5, 14))
    (tmp_path / "mask.tif").write_bytes(tiff(numbers, depth, photometric))
    assert (load_labels(tmp_path / "mask.tif") == numbers).all()


@pytest.mark.parametrize("top", [1, 3, 20, 254, 255, 256, 1000, 65535])
@pytest.mark.parametrize("kind", ["P2", "P5"])
def test_pgm_of_any_maximum(tmp_path, top, kind):
    numbers = np.linspace(0, top, 6).astype(np.int64).reshape(2, 3)
    data = " ".join(map(str, numbers.ravel())).encode()
    if kind == "P5":
        data = numbers.astype(np.uint8 if top < 256 else ">u2").tobytes()
    (tmp_path / "mask.png").write_bytes(f"{kind}\n# by hand\n3 2\n{top}\n".encode() + data)
    assert (load_labels(tmp_path / "mask.png") == numbers).all()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".gif", ".tif"])
@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_what_pillow_writes(tmp_path, suffix, mode):
    if (suffix, mode) == (".gif", "1"):
        pytest.skip("Pillow writes 0 and 255")
    numbers = np.random.default_rng(1).integers(0, 2 if mode == "1" else 7, (9, 11), np.uint8)
    image = Image.fromarray(numbers.astype(bool) if mode == "1" else numbers)
    if mode == "P":
        image.putpalette([200, 0, 0, 0, 200, 0, 9, 9, 9] + [5] * 30)
    image.save(tmp_path / f"mask{suffix}")
    assert (load_labels(tmp_path / f"mask{suffix}") == numbers).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_that_are_gray_are_numbers(tmp_path, mode):
    numbers = np.random.default_rng(2).integers(0, 5, (6, 8), np.uint8)
    Image.fromarray(numbers).convert(mode).save(tmp_path / "mask.png")
    assert (load_labels(tmp_path / "mask.png") == numbers).all()


def test_masks_are_turned_as_images_are(tmp_path):
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the left
    Image.fromarray(numbers).save(tmp_path / "mask.png", exif=exif)
    assert (load_labels(tmp_path / "mask.png") == np.rot90(numbers, -1)).all()


def half_transparent() -> Image.Image:
    image = Image.new("LA", (4, 4), (1, 255))
    image.putpixel((0, 0), (0, 0))
    return image


@pytest.mark.parametrize(
    ("image", "suffix", "message"),
    [
        (Image.new("RGB", (4, 4), (0, 0, 9)), ".png", r"pixels are colours \(mode RGB\).* PNG"),
        (half_transparent(), ".png", r"pixels are colours \(mode LA\)"),
        (Image.new("CMYK", (4, 4)), ".tif", r"pixels are colours \(mode CMYK\)"),
        (Image.new("F", (4, 4)), ".tif", "pixels are fractions|floating-point"),
        (Image.new("I", (4, 4), -1), ".tif", "-1 to -1, must be 0 to 65535|32-bit integer"),
        (Image.new("L", (4, 4)), ".jpg", "JPEG changes the numbers of pixels; save it as PNG"),
        (Image.new("RGB", (4, 4)), ".webp", "WEBP changes the numbers of pixels"),
        (Image.new("1", (4, 4)), ".pbm", "count down from white"),
    ],
)
def test_what_is_refused(tmp_path, image, suffix, message):
    image.save(tmp_path / f"mask{suffix}")
    with pytest.raises(ImageError, match=rf"mask{suffix}: .*({message})") as caught:
        load_labels(tmp_path / f"mask{suffix}")
    assert "\n" not in str(caught.value)


def test_files_whose_numbers_cannot_be_told(tmp_path):
    path = tmp_path / "mask.png"
    numbers = np.ones((4, 4), np.int64)
    path.write_bytes(tiff(numbers, 1, photometric=0))
    with pytest.raises(ImageError, match="count down from white"):
        load_labels(path)
    # Of 16 bits in a channel Pillow keeps 8.
    path.write_bytes(png(numbers[..., None].repeat(3, -1) + 300, 16, RGB))
    with pytest.raises(ImageError, match="pixels are colours"):
        load_labels(path)
    Image.new("L", (16, 16), 3).save(path, format="TIFF", compression="jpeg")
    with pytest.raises(ImageError, match=r"JPEG .*changes the numbers"):
        load_labels(path)


@pytest.mark.parametrize("top", [15, 65535])
def test_a_ppm_whose_numbers_are_scaled_is_refused(tmp_path, top):
    path = tmp_path / "a.ppm"
    pixels = np.full((4, 4, 3), 3, np.uint8 if top < 256 else ">u2")
    path.write_bytes(b"P6\n4 4\n%d\n" % top + pixels.tobytes())
    with pytest.raises(ImageError, match="its pixels are colours"):
        load_labels(path)
