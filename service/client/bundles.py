"""Bundles: a tar archive of a checkpoint, its record and the files of its artifacts, made while it is sent."""

import json
import re
import tarfile
from typing import Any

from service.client.errors import BadArgument
from service.client.files import Content, Upload

_MOST_RECORD = 64 * 2**20  # bytes
_DIGEST, _FORM = "sha256 of file", "form"  # the keys of an artifact in the record whose value is in a file


def upload(weights: Content) -> Upload:
    """Return a checkpoint file, as a bundle if the record next to it names artifacts.

    Raises BadArgument if the file of an artifact is missing.
    """
    path = weights.path.with_suffix(".json")
    artifacts = {} if path == weights.path else _artifacts(path)
    if not artifacts:
        return Upload(weights)
    members = {f"checkpoint{weights.path.suffix}": weights, "checkpoint.json": Content(path)}
    for name, value in artifacts.items():
        if isinstance(value, dict) and value.keys() == {_DIGEST, _FORM}:
            file = _beside(weights, str(value[_DIGEST]), name)
            members[file.path.name] = file
    parts: list[bytes | Content] = []
    for name, content in members.items():
        header = tarfile.TarInfo(name)
        header.size = content.size
        parts += [header.tobuf(tarfile.GNU_FORMAT), content, bytes(-content.size % tarfile.BLOCKSIZE)]
    return Upload(*parts, bytes(2 * tarfile.BLOCKSIZE))


def _artifacts(path: Any) -> dict[str, Any]:
    """Return the artifacts that a record names; none if it is missing, or another JSON file of that name."""
    try:
        if path.stat().st_size > _MOST_RECORD:
            return {}
        found = json.loads(path.read_bytes())["artifacts"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _beside(weights: Content, digest: str, artifact: str) -> Content:
    """Return the file of an artifact. Only a digest is looked for: a record from elsewhere names no other file."""
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise BadArgument(f"the record of {weights.path} names no SHA-256 digest for the artifact {artifact}")
    path = weights.path.with_name(f"{digest[:24]}.artifact")
    if not path.is_file():
        raise BadArgument(f"{path}, the file of the artifact {artifact}, is missing: copy it there with the .pt file")
    return Content(path)
