"""Every kind of file that a folder of images has been seen to hold, made here and decoded."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from spanets_runtime.errors import UserError
from spanets_runtime.images import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    ImageError,
    load_image,
    quiet_decoder,
)

ORIENTATION = 0x0112
WHITE, RED = (255, 255, 255), (255, 0, 0)


def pattern(height: int = 6, width: int = 8) -> np.ndarray:
    """Four corners of different colours, (H, W, 3), so that every rotation differs."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = WHITE
    return pixels


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def load(tmp_path: Path, content: bytes | Image.Image, name: str = "image.png") -> np.ndarray:
    path = tmp_path / name
    if isinstance(content, Image.Image):
        content.save(path)
    else:
        path.write_bytes(content)
    image = load_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def failure(path: Path, **options) -> str:
    """Returns what `load_image` says of a bad file, path stripped, checking the form of it."""
    with pytest.raises(ImageError) as caught:
        load_image(path, **options)
    message = str(caught.value)
    assert isinstance(caught.value, UserError)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def write(tmp_path: Path, content: bytes, name: str = "bad.png") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


# ---- what decodes


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_pixel(tmp_path, form):
    content = encoded(Image.fromarray(pattern()), form)
    assert np.array_equal(load(tmp_path, content), pattern())


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "GIF"])
def test_the_bytes_tell_the_format_and_not_the_suffix(tmp_path, form):
    content = encoded(Image.new("RGB", (16, 16), RED), form)
    pixels = load(tmp_path, content, "image.png").astype(int)
    assert np.abs(pixels - RED).max() <= 4  # lossy


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_single_pixel_decodes(tmp_path, mode):
    assert load(tmp_path, Image.new(mode, (1, 1), "white")).tolist() == [[[255, 255, 255]]]


def test_one_bit_pixels_are_black_and_white(tmp_path):
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert load(tmp_path, bits)[..., 0].tolist() == [[0, 255]]


GRAY16 = np.array([[0, 255, 256, 0x8000, 0x80FF, 0xFFFF]], np.uint16)
GRAY8 = [[0, 0, 1, 128, 128, 255]]


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (GRAY16, "gray.png"),
        (GRAY16, "gray.tif"),
        (GRAY16.astype(">u2"), "gray.tif"),
        (GRAY16.astype(np.int32), "gray.tif"),
    ],
)
def test_deep_gray_is_scaled_by_the_range_of_the_format(tmp_path, array, name):
    assert load(tmp_path, Image.fromarray(array), name)[..., 2].tolist() == GRAY8


def test_16_bit_pgm(tmp_path):
    content = b"P5 6 1 65535\n" + GRAY16.astype(">u2").tobytes()
    assert load(tmp_path, content)[..., 0].tolist() == GRAY8


def test_deep_gray_is_not_stretched_to_its_own_extremes(tmp_path):
    dark = Image.fromarray(np.array([[512, 1024]], np.uint16))
    assert load(tmp_path, dark)[..., 0].tolist() == [[2, 4]]


def test_cmyk_jpeg(tmp_path):
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    pixels = load(tmp_path, encoded(cyan, "JPEG", quality=95)).astype(int)
    assert np.abs(pixels - (0, 255, 255)).max() <= 4  # lossy


def test_palette(tmp_path):
    flat = Image.fromarray(pattern()).quantize(4)
    assert np.array_equal(load(tmp_path, flat), pattern())


def test_palette_with_transparency_lies_on_white(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, *RED])
    palette.putpixel((1, 0), 1)
    content = encoded(palette, "PNG", transparency=0)
    assert load(tmp_path, content).tolist() == [[list(WHITE), list(RED)]]
    content = encoded(palette, "PNG", transparency=b"\x00\x80")  # an alpha value an entry
    assert load(tmp_path, content).tolist() == [[list(WHITE), [255, 127, 127]]]


def test_colour_key_lies_on_white(tmp_path):
    content = encoded(Image.fromarray(pattern()), "PNG", transparency=RED)
    pixels = load(tmp_path, content)
    assert (pixels[0, 0] == WHITE).all()
    assert np.array_equal(pixels[3:], pattern()[3:])


@pytest.mark.parametrize(
    ("mode", "hidden", "half"), [("RGBA", (0, 0, 0, 0), (0, 0, 0, 128)), ("LA", (0, 0), (0, 128))]
)
def test_colours_under_transparency_do_not_show(tmp_path, mode, hidden, half):
    image = Image.new(mode, (2, 1), hidden)
    image.putpixel((1, 0), half)
    assert load(tmp_path, image)[..., 0].tolist() == [[255, 127]]


def test_opaque_rgba_keeps_every_pixel(tmp_path):
    opaque = Image.fromarray(pattern()).convert("RGBA")
    assert np.array_equal(load(tmp_path, opaque), pattern())


def test_premultiplied_gray(tmp_path):
    straight = encoded(Image.new("LA", (2, 2), (0, 128)), "TIFF")
    extra_samples = struct.Struct("<HHII").pack  # tag, type SHORT, count, 1 premultiplied or 2 not
    content = straight.replace(extra_samples(338, 3, 1, 2), extra_samples(338, 3, 1, 1))
    assert content != straight
    assert load(tmp_path, content)[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(tmp_path, form):
    first, second = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "black")
    content = encoded(first, form, save_all=True, append_images=[second])
    assert load(tmp_path, content).min() == 255


def oriented(orientation: int, form: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(Image.fromarray(pattern(16, 32)), form, exif=exif, quality=95)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_come_upright(tmp_path, orientation, form):
    content = oriented(orientation, form)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels = load(tmp_path, content)
    assert pixels.shape == ((32, 16, 3) if orientation > 4 else (16, 32, 3))
    assert np.array_equal(pixels, expected)


def test_nothing_can_turn_an_image_twice(tmp_path):
    image = load_image(write(tmp_path, oriented(6, "JPEG")))
    assert not image.info and not image.getexif()


def test_a_jpeg_whose_orientation_is_in_xmp_comes_upright(tmp_path):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    content = encoded(Image.fromarray(pattern(16, 32)), "JPEG", xmp=xmp)
    assert load_image(write(tmp_path, content)).size == (16, 32)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif_does_not_cost_the_image(tmp_path, exif):
    content = encoded(Image.fromarray(pattern(16, 32)), "JPEG", exif=exif)
    assert load(tmp_path, content).shape == (16, 32, 3)


def test_an_image_outlives_its_file(tmp_path):
    path = write(tmp_path, encoded(Image.fromarray(pattern()), "PNG"))
    image = load_image(str(path))
    path.unlink()
    assert np.array_equal(np.asarray(image), pattern())


# ---- what is refused


def test_missing_file(tmp_path):
    assert failure(tmp_path / "photo.jpg") == "no such file"
    path = write(tmp_path, b"")
    assert failure(path / "photo.jpg") == "no such file"


def test_folder(tmp_path):
    assert failure(tmp_path) == "is a folder, not an image"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert failure(tmp_path / "pipe.png") == "is not a regular file"


def test_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")  # root, who may run this, reads all

    monkeypatch.setattr(Image, "open", refuse)
    path = write(tmp_path, png_header(1, 1))
    assert failure(path) == "cannot be read (Permission denied)"


def test_empty_file(tmp_path):
    assert failure(write(tmp_path, b"")) == "the file is empty"


@pytest.mark.parametrize("content", [b"hello, world\n", bytes(99), b"BM is no picture"])
def test_file_that_is_no_image(tmp_path, content):
    assert failure(write(tmp_path, content)).startswith("not an image")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_truncated_file(tmp_path, form):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    content = encoded(Image.fromarray(noise), form)
    reason = failure(write(tmp_path, content[: len(content) // 2]))
    assert reason.startswith(("truncated or corrupt image (", "not an image"))


def test_floating_point_pixels(tmp_path):
    Image.new("F", (2, 2)).save(tmp_path / "image.tif")
    assert failure(tmp_path / "image.tif").startswith("floating-point pixels")


@pytest.mark.parametrize("value", [-1, 65536])
def test_wide_integer_pixels(tmp_path, value):
    Image.new("I", (2, 2), value).save(tmp_path / "image.tif")
    assert failure(tmp_path / "image.tif").startswith("32-bit integer pixels")


def test_zero_size(tmp_path):
    content = b"P5 0 4 255\n"
    failure(write(tmp_path, content))
    failure(write(tmp_path, png_header(0, 4)))


def test_decompression_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    path = write(tmp_path, png_header(30000, 30000), "bomb.png")
    assert failure(path) == f"30000x30000 pixels is over the limit of {MAX_PIXELS} pixels"


def test_own_limit_holds_whatever_the_one_of_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = write(tmp_path, png_header(30000, 30000), "bomb.png")
    assert failure(path) == f"30000x30000 pixels is over the limit of {MAX_PIXELS} pixels"
    path = write(tmp_path, encoded(Image.new("L", (5, 5)), "PNG"))
    assert failure(path, max_pixels=24) == "5x5 pixels is over the limit of 24 pixels"
    assert load_image(path, max_pixels=25).size == (5, 5)


def test_below_the_limit_pillow_does_not_warn(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # it warns above, and refuses above 40
    path = write(tmp_path, encoded(Image.new("L", (5, 5)), "PNG"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(path)
    assert Image.MAX_IMAGE_PIXELS == 20


def test_quiet_for_many_images(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    path = write(tmp_path, encoded(Image.new("L", (5, 5)), "PNG"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = warnings.filters[:]
        with quiet_decoder():
            for _ in range(2):
                load_image(path)
            with pytest.raises(ImageError):
                load_image(tmp_path / "none.png")
        assert warnings.filters == before
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(path)


def test_one_line_even_for_a_name_of_two(tmp_path):
    with pytest.raises(ImageError, match=r"two\\nlines.png: no such file$"):
        load_image(tmp_path / "two\nlines.png")


def test_suffixes_are_lower_case_and_dotted():
    assert all(suffix.startswith(".") and suffix.islower() for suffix in IMAGE_SUFFIXES)


# ---- damaged bytes

PICTURE = Image.fromarray(pattern(16, 16))
VALID = [
    encoded(PICTURE, "PNG"),
    encoded(PICTURE.quantize(4), "PNG", transparency=0),
    oriented(6, "JPEG"),
    encoded(PICTURE, "GIF"),
    encoded(PICTURE, "TIFF", compression="tiff_lzw"),
    encoded(PICTURE, "WEBP"),
]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "fuzzed.png"


@settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    content=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_damaged_bytes_give_an_image_or_an_image_error(fuzzed, content, changes, kept):
    damaged = bytearray(content)
    for position, value in changes:
        damaged[int(position * len(damaged))] = value
    fuzzed.write_bytes(damaged[: int(kept * len(damaged))])
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        try:
            image = load_image(fuzzed, max_pixels=1_000_000)  # keeps a lucky header cheap
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert image.mode == "RGB" and min(image.size) > 0
    assert not leaked


def test_a_long_comment_of_a_pgm_hides_nothing(tmp_path):
    path = tmp_path / "a.pgm"
    pixels = np.full((4, 4), 40_000, ">u2").tobytes()
    path.write_bytes(b"P5\n#" + b"x" * 5000 + b"\n4 4\n65535\n" + pixels)
    assert load_image(path).getpixel((0, 0)) == (156, 156, 156)
    path.write_bytes(b"P5\n#" + b"x" * 70_000 + b"\n4 4\n65535\n" + pixels)
    with pytest.raises(ImageError, match="its header is not complete"):
        load_image(path)
