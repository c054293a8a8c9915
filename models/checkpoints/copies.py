"""Copies: a store folder as the cache of an object store, which has the files.

An object is named by its file's path in the store folder and the SHA-256 of its content: NAME/SHA256. A file of which
there are several states, one after the other, has NAME/NUMBER-SHA256; the greatest number is the newest. Local files
that cannot be written are copies, and may be removed; others are not in the object store yet.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from models.checkpoints.files import file_digest, unwritable, writing
from models.checkpoints.objects import Objects
from models.errors import BrokenObject, ObjectsUnavailable, UnwritableCopy

FOLDERS = ("checkpoints", "exports", "datasets", "jobs")
_SPARED_S = 600.0  # after its last use, a copy stays: its reader may open it again
_COPY, _FILE = 0o444, 0o644
_LAST = "manifest.json"  # of a dataset version: the file whose use is that of the folder
PARTS = "files.json"  # of a folder: SHA-256 by name
_SHA256 = 64


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy that is removed as one: a file, or the folder of a dataset version."""

    path: Path
    bytes: int
    used_at: float


class Copies:
    """Publishes files of the folder `root`, and fetches them. The copies have at most `most_bytes` together.

    Methods raise ObjectsUnavailable. A file that is there already is not read from the object store.
    """

    def __init__(self, root: Path, objects: Objects, most_bytes: int) -> None:
        self.root = root
        self.objects = objects
        self._most_bytes = most_bytes

    @property
    def hasty(self) -> "Copies":
        """The same copies for optional work: ObjectsUnavailable is raised at once."""
        return Copies(self.root, self.objects.hasty, self._most_bytes)

    def name(self, path: Path) -> str:
        """Return the name of a file, or of a folder."""
        return path.relative_to(self.root).as_posix()

    def publish(self, path: Path) -> None:
        """Put a file that never changes. Raises OSError."""
        self.give(path)
        path.chmod(_COPY)
        self.make_room()

    def give(self, path: Path) -> bool:
        """Put a file that never changes, and leave it unchanged. Returns False if it was there. Raises OSError."""
        return self.objects.put(f"{self.name(path)}/{file_digest(path)}", path)

    def replace(self, path: Path) -> None:
        """Put the present state of a file, in place of earlier ones. Raises OSError."""
        self.give_state(path)
        path.chmod(_COPY)

    def give_state(self, path: Path) -> bool:
        """Put the state of a file, and leave the file unchanged. Returns False if it was there. Raises OSError."""
        name, content = self.name(path), path.read_bytes()
        before = [found.key for found in self.objects.below(name)]
        sha256 = hashlib.sha256(content).hexdigest()
        if before and before[-1].endswith(sha256):
            return False
        latest = max([time.time_ns(), *(_number(key) + 1 for key in before)])
        self.objects.put(f"{name}/{latest:020d}-{sha256}", content)
        self.objects.delete(before)
        return True

    def fetch(self, path: Path, sha256: str) -> Path:
        """Return the path of a file that never changes: the copy, if it is whole, or else a new one.

        Raises BrokenObject, UnwritableCopy.
        """
        if not _used(path, sha256):
            self._copy(f"{self.name(path)}/{sha256}", path, sha256)
            self.make_room()
        return path

    def newest(self, path: Path) -> Path:
        """Return the path of the newest state of a file; there is none at it, if there is none. Raises BrokenObject."""
        try:
            keys = [found.key for found in self.objects.below(self.name(path))]
        except ObjectsUnavailable:
            if path.exists():
                return path
            raise
        if path.exists() and not _is_copy(path) and not (keys and _number(keys[-1]) > path.stat().st_mtime_ns):
            return path  # written here, and not yet published
        if keys and not _used(path, keys[-1][-_SHA256:]):
            self._copy(keys[-1], path, keys[-1][-_SHA256:])
        return path

    def publish_folder(self, folder: Path) -> None:
        """Put the files of a folder, which appear together; those in folders in it are left out. Raises OSError.

        If another process has put a folder of that name, that one stays.
        """
        self.give_folder(folder)
        for path in filter(_is_part, folder.iterdir()):
            path.chmod(_COPY)
        self.make_room()

    def give_folder(self, folder: Path) -> bool:
        """Put a folder as `publish_folder` does, and leave it unchanged. Returns False if it was there."""
        if self.has_folder(folder):
            return False
        name, files = (
            self.name(folder),
            {path.name: file_digest(path) for path in sorted(filter(_is_part, folder.iterdir()))},
        )
        for file, sha256 in files.items():
            self.objects.put(f"{name}/{file}/{sha256}", folder / file)
        return self.objects.put(f"{name}/{PARTS}", json.dumps(files).encode())

    def fetch_folder(self, folder: Path) -> Path:
        """Return the path of a folder whose files are whole: the copy, or a new one. Raises as `fetch`."""
        if not _used_folder(folder):
            draft = folder.with_name(f".fetched-{uuid4().hex}")
            try:
                self._copy_folder(self.name(folder), draft)
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # another process was faster
                    draft.rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            self.make_room()
        return folder

    def content_in(self, folder: Path, file: str) -> bytes:
        """Return the content of one file of a folder, which is not copied. Raises BrokenObject."""
        name = self.name(folder)
        key = f"{name}/{file}/{self._parts(name)[1].get(file)}"
        try:
            return self.objects.content(key)
        except FileNotFoundError as err:
            raise _missing(key) from err

    def take(self, path: Path, key: str) -> bool:
        """Copy an object to a file outside the cache. Returns False if it was there. Raises as `fetch`."""
        sha256 = sha256_of(key) or ""
        if _used(path, sha256):
            return False
        self._copy(key, path, sha256)
        path.chmod(_FILE)
        return True

    def take_folder(self, folder: Path) -> bool:
        """Copy the files of a folder, which are then no copies. Returns False if it was there. Raises as `fetch`."""
        if _used_folder(folder):
            return False
        self.fetch_folder(folder)
        (folder / PARTS).unlink()
        for path in folder.iterdir():
            path.chmod(_FILE)
        return True

    def has_folder(self, folder: Path) -> bool:
        """Return whether there is a folder of that name."""
        return self.objects.exists(f"{self.name(folder)}/{PARTS}")

    def remove(self, path: Path) -> None:
        """Delete the objects of a file, or of a folder and all in it."""
        self.objects.delete([found.key for found in self.objects.below(self.name(path))])

    def below(self, *names: str) -> list[Path]:
        """Return the paths, in the store folder, of the objects in a folder and in the folders in it."""
        keys = {found.key.rpartition("/")[0] for found in self.objects.below("/".join(names))}
        return [self.root / key for key in sorted(keys)]

    def folders(self, name: str) -> list[str]:
        """Return the names of the folders in a folder of the object store."""
        return self.objects.folders(name)

    def damaged(self, name: str) -> Iterator[str]:
        """Yield the keys of objects in a folder, and in those in it, whose content is not the one they are named by."""
        for found in self.objects.below(name):
            sha256 = sha256_of(found.key)
            if sha256 is not None and self.content_digest(found.key) != sha256:
                yield found.key

    def content_digest(self, key: str) -> str:
        """Return the SHA-256 of an object's content. Raises FileNotFoundError."""
        found = hashlib.sha256()
        try:
            for piece in self.objects.read(key):
                found.update(piece)
        except FileNotFoundError as err:
            raise FileNotFoundError(errno.ENOENT, "it is missing in the object store") from err
        return found.hexdigest()

    def make_room(self) -> None:
        """Remove the copies that were not used for the longest time, until the others fit."""
        copies = sorted(self._copies(), key=lambda copy: copy.used_at)
        total = sum(copy.bytes for copy in copies)
        for copy in copies:
            if total <= self._most_bytes or copy.used_at > time.time() - _SPARED_S:
                return
            _drop(copy.path)
            total -= copy.bytes

    def _copies(self) -> Iterator[_Copy]:
        """Yield removable copies; of a dataset version, only the whole folder."""
        for top in FOLDERS:
            for path in (self.root / top).rglob("*"):
                with suppress(FileNotFoundError):
                    if path.name.startswith(".") or not path.is_file() or not _is_copy(path):
                        continue
                    used_at = path.stat().st_atime
                    if top != "datasets" or path.parent.name in {"originals", "reports"}:
                        yield _Copy(path, path.stat().st_size, used_at)
                    elif path.name == _LAST:
                        files = [file.lstat().st_size for file in path.parent.rglob("*")]
                        yield _Copy(path.parent, sum(files), used_at)

    def _copy(self, key: str, path: Path, sha256: str) -> None:
        """Copy an object to a file, atomically. Raises BrokenObject, UnwritableCopy."""

        def copy() -> None:
            found = hashlib.sha256()
            with writing(path, _COPY) as file:
                for piece in self.objects.read(key):
                    found.update(piece)
                    file.write(piece)
                if found.hexdigest() != sha256:
                    raise BrokenObject(
                        f"{key} in the object store is damaged (sha256 differs): restore it, or delete it and copy it "
                        "again with torchloop artifacts copy"
                    )

        try:
            self.objects.insist(copy)
        except FileNotFoundError as err:
            raise _missing(key) from err
        except OSError as err:
            raise UnwritableCopy(f"{path.name} cannot be copied from the object store: {unwritable(err)}") from err

    def _copy_folder(self, name: str, draft: Path) -> None:
        content, files = self._parts(name)
        for file, sha256 in files.items():
            self._copy(f"{name}/{file}/{sha256}", draft / Path(file).name, sha256)
        (draft / PARTS).write_bytes(content)

    def _parts(self, name: str) -> tuple[bytes, dict[str, str]]:
        """Return the content of the list of a folder's files, and their SHA-256 by name. Raises BrokenObject."""
        key = f"{name}/{PARTS}"
        try:
            content = self.objects.content(key)
            return content, {str(file): str(sha256) for file, sha256 in json.loads(content).items()}
        except FileNotFoundError as err:
            raise _missing(key) from err
        except (ValueError, AttributeError) as err:
            raise BrokenObject(f"{key} in the object store is damaged: restore it") from err


def sha256_of(key: str) -> str | None:
    """Return the SHA-256 that an object is named by; None if it is named otherwise, as the parts of uploads."""
    last = key.rpartition("/")[2].rpartition("-")[2]
    return last if len(last) == _SHA256 and "/" in key else None


def _number(key: str) -> int:
    """Return the number of a state, nanoseconds since 1970; 0 for a file that never changes."""
    number, dash, _ = key.rpartition("/")[2].partition("-")
    return int(number) if dash else 0


def _is_part(path: Path) -> bool:
    return path.is_file() and path.name != PARTS and not path.name.startswith(".")


def _is_copy(path: Path) -> bool:
    return not path.stat().st_mode & stat.S_IWUSR


def _used(path: Path, sha256: str) -> bool:
    """Return whether a file has this digest, and note that it was used."""
    try:
        if file_digest(path) != sha256:
            return False
        _touch(path)
    except OSError:
        return False
    return True


def _used_folder(folder: Path) -> bool:
    """Return whether the files of a folder are whole, and note that they were used. A folder made here is."""
    try:
        files = json.loads((folder / PARTS).read_bytes()) if (folder / PARTS).exists() else {}
        if any(file_digest(folder / file) != sha256 for file, sha256 in files.items()):
            return False
        _touch(folder / _LAST)
    except (OSError, ValueError):
        return False
    return True


def _touch(path: Path) -> None:
    """Note that a file was used. Its time of modification stays."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _drop(path: Path) -> None:
    """Remove a file, or a folder at once."""
    with suppress(OSError):
        if path.is_dir():
            hidden = path.with_name(f".dropped-{uuid4().hex}")
            path.rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)
        else:
            path.unlink()


def _missing(key: str) -> BrokenObject:
    return BrokenObject(f"{key} is missing in the object store: restore it, or copy it with torchloop artifacts copy")
