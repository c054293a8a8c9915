"""Name the format of files that are not supported pictures, for the error message."""

from collections.abc import Mapping

_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}
_STARTS: Mapping[bytes, str] = {
    b"II*\0": "a TIFF file",
    b"MM\0*": "a TIFF file",
    b"II+\0": "a TIFF file",
    b"MM\0+": "a TIFF file",
    b"%PDF-": "a PDF document",
    b"8BPS": "a Photoshop file",
    b"\0\0\1\0": "an icon",
    b"\xff\x0a": "a JPEG XL file",
    b"\0\0\0\x0cJXL ": "a JPEG XL file",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 file",
    b"\xff\x4f\xff\x51": "a JPEG 2000 file",
    b"v/1\1": "an OpenEXR file",
    **dict.fromkeys((b"P%d" % number for number in range(1, 7)), "a Netpbm file"),
    b"\x93NUMPY": "a NumPy array (its Content-Type is application/x-npy)",
    b"PK\3\4": "a ZIP archive",
    b"\x1f\x8b": "compressed by gzip (which Content-Encoding: gzip says)",
    b"data:": "a data URL (the part after the comma is base64)",
    b"iVBORw0KGgo": "base64 text of a PNG file",
    b"/9j/": "base64 text of a JPEG file",
    b"{": "text (the Content-Type of JSON is application/json)",
    b"[": "text (the Content-Type of JSON is application/json)",
}
_MARKUP = 1024  # bytes in which the first element of a document is looked for


def description(content: bytes) -> str | None:
    """Return the format of a file by its first bytes, such as "a TIFF file"; None if it is not known."""
    if not content:
        return "empty"
    if content[4:8] == b"ftyp":  # an ISO base media file
        brand = content[8:12]
        return "a HEIC file" if brand in _HEIF else "an AVIF file" if brand in _AVIF else "a video"
    if content[128:132] == b"DICM":
        return "a DICOM file"
    start = content[:_MARKUP].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"<"):
        lower = start.lower()
        return "an SVG drawing" if b"<svg" in lower else "an HTML page" if b"<html" in lower else "markup"
    return next((what for magic, what in _STARTS.items() if content.startswith(magic)), None)
