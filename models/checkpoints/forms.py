"""Formats of files that are not state_dicts, detected by their first bytes or by the members of a zip archive.

Each has a name and a way out for the error message. Needs no torch.
"""

import re
from collections.abc import Iterable

_SAVE = "Write it with torch.save(network.state_dict(), FILE)"
_OTHER = "Only PyTorch networks can be served"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number of torch.save before PyTorch 1.6
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_LOOKED_AT = 4096  # bytes of a pickle that may name the library that wrote it

_BY_START: tuple[tuple[bytes, str, str], ...] = (
    (
        _LEGACY,
        "a file in the format that torch.save wrote before PyTorch 1.6",
        "Convert it with torch.save(torch.load(FILE, weights_only=True), FILE)",
    ),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, e.g. of Keras", _OTHER),
    (b"\x1f\x8b", "compressed with gzip", "Decompress it with gunzip"),
    (b"BZh", "compressed with bzip2", "Decompress it with bunzip2"),
    (b"\xfd7zXZ\0", "compressed with xz", "Decompress it with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Decompress it with unzstd"),
    (b"x\x9c", "compressed with zlib, e.g. by joblib", _OTHER),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack the state_dict file and send that"),
    (b"Rar!\x1a\x07", "a RAR archive", "Unpack the state_dict file and send that"),
    (
        b"\x93NUMPY",
        "a NumPy array (.npy)",
        "A state_dict has all tensors with their names: torch.save(network.state_dict(), FILE)",
    ),
    (b"PK\x05\x06", "a zip archive without members", _SAVE),
    (b"GGUF", "a GGUF file", "Only PyTorch state_dicts can be served"),
    (b"version https://git-lfs", "a pointer of Git LFS, without the weights", "Fetch the file with git lfs pull"),
    (
        b"--",
        "a form (multipart/form-data)",
        "Send the file itself as the body, e.g. curl --data-binary @FILE",
    ),
    (b"<", "a web page or XML, e.g. the login page of a download", "Download the state_dict file itself"),
    (b'{"learner"', "an XGBoost model", _OTHER),
    (b"{L\0\0\0\0\0\0\0\x07learner", "an XGBoost model (UBJSON)", _OTHER),
    (b"tree\nversion=", "a LightGBM model", _OTHER),
    (b"CBM1", "a CatBoost model", _OTHER),
    (b"{", "JSON", _SAVE),
)  # fmt: skip

_BY_MARK: tuple[tuple[int, bytes, str, str], ...] = (
    (257, b"ustar", "a tar archive", "Unpack the state_dict file and send that"),
    (4, b"TFL3", "a TensorFlow Lite file", _OTHER),
)

_BY_PATTERN: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    # protobuf: field 1, the version of the format, then another field
    (re.compile(rb"\x08\x01\x12"), "a TensorFlow SavedModel", _OTHER),
    (
        re.compile(rb"\x08[\x03-\x14][\x12\x1a\x22\x2a\x32\x3a\x42]"),
        "an ONNX file, which has no state_dict",
        f"{_SAVE}, from the network that was exported",
    ),
)

_BY_MEMBER: tuple[tuple[str, str, str], ...] = (
    (
        r"[^/]*/constants\.pkl|[^/]*/code/.*",
        "a TorchScript file",
        "Convert it with torch.save(torch.jit.load(FILE).state_dict(), FILE)",
    ),
    (
        r"(.*/)?(serialized_exported_program\.json|archive_format|models/[^/]*\.json)",
        "a torch.export file",
        "Convert it with torch.save(dict(torch.export.load(FILE).state_dict), FILE)",
    ),
    (r"MAR-INF/.*", "a TorchServe archive (.mar)", "Unpack it and send its state_dict file (--serialized-file)"),
    (r"model\.weights\.h5", "a Keras file", _OTHER),
    (
        r".*\.npy",
        "an archive of NumPy arrays (.npz)",
        "Convert it with torch.save({key: torch.from_numpy(array) for key, array in numpy.load(FILE).items()}, FILE)",
    ),
    (r"\[Content_Types\]\.xml", "an office document", _SAVE),
)  # fmt: skip


def of_content(content: bytes) -> str:
    """Describe content that is neither a zip archive nor safetensors: its format, and the way out."""
    text = content.lstrip(b"\xef\xbb\xbf \r\n\t")
    if not text:
        return f"it is empty. {_SAVE}"
    for start, form, way_out in _BY_START:
        if content.startswith(start) or text.startswith(start):
            return f"it is {form}. {way_out}"
    for at, mark, form, way_out in _BY_MARK:
        if content.startswith(mark, at):
            return f"it is {form}. {way_out}"
    for pattern, form, way_out in _BY_PATTERN:
        if pattern.match(content):
            return f"it is {form}. {way_out}"
    return _of_pickle(content) if _PICKLE.match(content) else f"its format is unknown, or it is damaged. {_SAVE}"


def of_members(names: Iterable[str]) -> str:
    """Describe a zip archive that torch.save did not write; empty if its members are those of torch.save."""
    names = list(names)
    for pattern, form, way_out in _BY_MEMBER:
        if any(re.fullmatch(pattern, name) for name in names):
            return f"it is {form}. {way_out}"
    if not any(re.fullmatch(r"[^/]*/data\.pkl", name) for name in names):
        return f"it is a zip archive without data.pkl, so torch.save did not write it. {_SAVE}"
    return ""


def _of_pickle(content: bytes) -> str:
    start = content[:_LOOKED_AT]
    for library in ("sklearn", "joblib", "xgboost", "lightgbm", "catboost"):
        if library.encode() in start:
            named = "scikit-learn" if library == "sklearn" else library
            return f"it is a pickled object of {named}, which is never unpickled. {_OTHER}"
    return f"it is a pickled object, which is never unpickled. {_SAVE}"
