"""Sizes from headers are those of decoded images, or unknown."""

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from spanets_runtime.images import load_image
from spanets_runtime.sizes import quick_size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_sizes_are_upright(tmp_path, suffix, orientation):
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (20, 30)).save(path, exif=exif)
    image = load_image(path)
    assert quick_size(path) in ((image.height, image.width), None)


def test_whole_files_have_a_size(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (70, 50, 3), np.uint8)
    for suffix in (".jpg", ".png", ".bmp", ".gif", ".tif", ".webp", ".ppm"):
        Image.fromarray(noise).save(tmp_path / f"a{suffix}")
        assert quick_size(tmp_path / f"a{suffix}") == (70, 50)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_broken_files_have_none(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 50, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for length in (0, 30, len(whole) // 2, len(whole) - 12):
        path.write_bytes(whole[:length])
        assert quick_size(path) is None


def test_what_is_no_file(tmp_path):
    assert quick_size(tmp_path) is None
    assert quick_size(tmp_path / "none.png") is None


def test_a_png_may_hold_its_orientation_in_a_text_or_after_the_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes()
    profile, xmp = PngInfo(), PngInfo()
    profile.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n")
    xmp.add_itxt("XML:com.adobe.xmp", '<rdf tiff:Orientation="6"/>')
    image = Image.new("RGB", (20, 30))
    for name, text in (("profile", profile), ("xmp", xmp)):
        image.save(tmp_path / f"{name}.png", pnginfo=text)
    image.save(tmp_path / "late.png", exif=exif)
    whole = (tmp_path / "late.png").read_bytes()
    start, end = whole.index(b"eXIf") - 4, whole.index(b"IEND") - 4
    stop = start + 12 + int.from_bytes(whole[start : start + 4], "big")
    parts = (whole[:start], whole[stop:end], whole[start:stop], whole[end:])
    (tmp_path / "late.png").write_bytes(b"".join(parts))
    for path in tmp_path.iterdir():
        assert load_image(path).size == (30, 20)
        assert quick_size(path) is None
