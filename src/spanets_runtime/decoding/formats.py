"""Detects the format of a file from its bytes, and describes files that cannot be read."""

import re
from importlib.util import find_spec
from typing import BinaryIO

from PIL import features

from spanets_runtime.decoding.decoded import Refused

# Other readers of Pillow are excluded, because some do more than decode: the EPS reader, for
# example, runs Ghostscript on the file.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")

LOSSY = ("JPEG", "WEBP", "AVIF", "JPEG2000", "HEIF")
"""Formats that may have changed the pixels; most files do not show whether they did."""

_SUFFIXES = {
    "AVIF": frozenset({".avif"}),
    "JPEG2000": frozenset({".jp2", ".j2k", ".jpf", ".jpx"}),
    "HEIF": frozenset({".heic", ".heif", ".hif"}),
}


def missing_reader(form: str) -> str | None:
    """Returns what is missing to read a format, or None if it can be read."""
    if form == "AVIF" and not _has("avif"):
        return "needs Pillow 11.3 or newer, built with AVIF"
    if form == "JPEG2000" and not _has("jpg_2000"):
        return "needs a Pillow that is built with OpenJPEG"
    if form == "HEIF" and find_spec("pillow_heif") is None:
        return "is read after: pip install 'spanets[images]'"
    return None


def _has(feature: str) -> bool:
    """Returns whether Pillow has a feature; older versions may not know its name."""
    known = feature in features.modules or feature in features.codecs
    return known and bool(features.check(feature))


IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
).union(*(names for form, names in _SUFFIXES.items() if missing_reader(form) is None))
"""Suffixes of image files in a folder, in lower case, for all formats that can be read."""

UNREADABLE_SUFFIXES = {
    suffix: need
    for form, names in _SUFFIXES.items()
    if (need := missing_reader(form)) is not None
    for suffix in names
}
"""Suffixes of images that cannot be read here, with what is missing."""

_READ = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("GIF", rb"GIF8[79]a"),
    ("WEBP", rb"RIFF.{4}WEBP"),
    ("TIFF", rb"II[*+]\0|MM\0[*+]"),
    ("JPEG2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    ("PPM", rb"P[1-6][\s#]"),
    ("BMP", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
)

_NAMES = {"AVIF": "an AVIF", "JPEG2000": "a JPEG 2000", "HEIF": "a HEIC or HEIF"}

_BRANDS = {"AVIF": {b"avif", b"avis"}, "HEIF": {b"heic", b"heix", b"heim", b"heis", b"hevc"}}
_BRANDS["HEIF"] |= {b"hevx", b"mif1", b"msf1"}

_AS_PNG = "save it as PNG"
_FAILED = "a download may have failed: fetch it again"
_RAW = "a raw photograph", "develop it and save it as PNG or TIFF"
_VIDEO = "a video", "save its frames as PNG"
_ARCHIVE = "an archive", "unpack it"

# For other files: pattern of the first bytes, name, and advice.
_OTHERS: tuple[tuple[bytes, tuple[str, str]], ...] = (
    (rb"\s*version https://git-lfs\.", ("a git-lfs pointer", "run: git lfs pull")),
    (rb"/annex/objects/|\.git/annex/", ("a git-annex pointer", "run: git annex get")),
    (rb"\0\0\x01\0[^\0]\0", ("an ICO image", _AS_PNG)),
    (rb"\0\0\x02\0[^\0]\0", ("a CUR image", _AS_PNG)),
    (rb"icns", ("an ICNS image", _AS_PNG)),
    (rb"8BPS", ("a PSD image", _AS_PNG)),
    (rb"gimp xcf", ("an XCF image", _AS_PNG)),
    (rb"\x76\x2f\x31\x01", ("an OpenEXR image", "save it as PNG, with a range that you choose")),
    (rb"#\?RADIANCE|#\?RGBE", ("an HDR image", "save it as PNG, with a range that you choose")),
    (rb"P[Ff]\s", ("a PFM image", "save it as PNG, with a range that you choose")),
    (rb"P7\n", ("a PAM image", _AS_PNG)),
    (rb"DDS ", ("a DDS texture", _AS_PNG)),
    (rb"qoif", ("a QOI image", _AS_PNG)),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", ("a JPEG XL image", _AS_PNG)),
    (rb"II\xbc[\0\x01]", ("a JPEG XR image", _AS_PNG)),
    (rb"\x8aMNG|\x8bJNG", ("an MNG or JNG image", _AS_PNG)),
    (rb"BPG\xfb", ("a BPG image", _AS_PNG)),
    (rb"\x01\xda[\0\x01][\x01\x02]", ("an SGI image", _AS_PNG)),
    (rb"\x59\xa6\x6a\x95", ("a Sun raster image", _AS_PNG)),
    (rb"\x0a[\0\x02\x03\x04\x05]\x01[\x01\x02\x04\x08]", ("a PCX image", _AS_PNG)),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", ("a Windows metafile", _AS_PNG)),
    (rb"%PDF-", ("a PDF document", "save its pages as PNG")),
    (rb"%!PS|\xc5\xd0\xd3\xc6", ("a PostScript file", "save its pages as PNG")),
    (rb"AT&TFORM", ("a DjVu document", "save its pages as PNG")),
    (rb".{128}DICM", ("a DICOM file", "save it as PNG, with a window that you choose")),
    (rb"SIMPLE  =", ("a FITS file", "save it as PNG, with a range that you choose")),
    (rb"\x5c\x01\0\0|\0\0\x01\x5c|\x6e[i+]", ("a NIfTI file", "save its slices as PNG")),
    (rb"\x89HDF", ("an HDF5 file", "save its images as PNG")),
    (rb"\x93NUMPY", ("a NumPy array", "set data.channels, or save it as PNG")),
    (rb"II\*\0.{4}CR|IIRO|IIRS|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb|\0MRM", _RAW),
    (rb"RIFF.{4}AVI |\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]|FLV\x01|OggS", _VIDEO),
    (rb"RIFF.{4}WAVE|ID3|fLaC", ("a sound", "remove it")),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", _ARCHIVE),
    (rb"\0\x05\x16\x07", ("a file of macOS's attributes", "remove it")),
    (rb"(?i:(\xef\xbb\xbf)?\s*(<\?xml.*?)?(<!--.*?-->\s*)*(<!DOCTYPE svg.*?)?<svg\b)",
     ("an SVG drawing", _AS_PNG)),
    (rb"(?i:(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b)",
     ("an HTML page", _FAILED)),
    (rb"(\xef\xbb\xbf)?\s*<(\?xml|[Ee]rror)\b", ("an XML document", _FAILED)),
    (rb"\s*\{\s*\"", ("a JSON document", _FAILED)),
)  # fmt: skip

_HEAD = 1024
_TGA_FOOTER = b"TRUEVISION-XFILE"


def identify(file: BinaryIO) -> str:
    """Returns the format of a file, one of `FORMATS`.

    Raises:
        Refused: it is another kind of file, which the message names, or its reader is missing.
    """
    file.seek(0)
    head = file.read(_HEAD)
    form = _format_of(head)
    if form is None:
        raise Refused(_describe(head, file))
    if (need := missing_reader(form)) is not None:
        raise Refused(f"{_NAMES[form]} image, which {need}")
    return form


def _format_of(head: bytes) -> str | None:
    for form, pattern in _READ:
        if re.match(pattern, head, re.DOTALL) and not re.match(rb"II\*\0.{4}CR", head, re.DOTALL):
            return form
    if head[4:8] == b"ftyp":
        size = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, size, 4))}
        # AVIF comes first, because files of both formats may carry the brands mif1 and msf1.
        return next((form for form, known in _BRANDS.items() if brands & known), None)
    return None


def _describe(head: bytes, file: BinaryIO) -> str:
    """Describes a file that has none of `FORMATS`, with advice."""
    if head[4:8] == b"ftyp" or head[4:8] in (b"moov", b"mdat"):
        what, advice = _RAW if head[8:12] == b"crx " else _VIDEO
        return f"{what}, not an image that can be read; {advice}"
    for pattern, (what, advice) in _OTHERS:
        if re.match(pattern, head, re.DOTALL):
            return f"{what}, which is not read; {advice}"
    if _ends_as_tga(file):
        return f"a TGA image, which is not read; {_AS_PNG}"
    if not any(head):
        return "not an image: it begins with zeros, like an interrupted copy"
    return f"not an image, or none of {', '.join(FORMATS)}"


def _ends_as_tga(file: BinaryIO) -> bool:
    file.seek(0, 2)
    file.seek(max(0, file.tell() - 18))
    return file.read().startswith(_TGA_FOOTER)
