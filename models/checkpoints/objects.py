"""Objects: files in S3, Google Cloud Storage or Azure Blob Storage. The only module that imports obstore.

Keys are relative to the prefix in the store's URL. An object is put if there is none of its name (a conditional put),
so that of several writers one wins.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from models.errors import ObjectsUnavailable

NEEDS = 'pip install "torchloop[s3]"'
_PIECE = 8 * 2**20  # bytes of a request's body
_AT_ONCE = 16 * 2**20  # larger files are put in parts, which S3 puts together without a condition
_SILENT_S = 10  # without a byte, then the object store counts as away
_RETRY_S = 1.0  # of a patient caller
_RIVALS = 4  # of which one may win, in the probe
_AWAY = "the object store cannot be reached or used; try again in a few seconds"
_DENIED = "the object store refuses access: check its credentials and their rights"
_ABSENT = "the object store has no such bucket: create it, or correct TORCHLOOP_ARTIFACTS"
_IGNORANT = (
    "the object store ignores conditional puts (If-None-Match), so that of two writers none would win: use one that "
    "honours them, such as S3, Google Cloud Storage, Azure Blob Storage or MinIO"
)
_ENDPOINTS: Mapping[str, Sequence[str]] = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
T = TypeVar("T")


class _NoBucket(ObjectsUnavailable):
    """Error: there is no such bucket, or no more."""


class ObjectsRefused(Exception):
    """Error: this object store cannot be used. The message names the way out."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object in a listing. `modified` is in seconds since 1970."""

    key: str
    bytes: int
    modified: float


class Objects:
    """The objects below a URL. Methods block, and raise ObjectsUnavailable while the object store is away."""

    def __init__(
        self,
        store: Any,
        *,
        watch: Callable[[], AbstractContextManager[None]] = nullcontext,
        patient: bool = False,
    ) -> None:
        """`store` is one of obstore. `watch` is entered around each access. `patient`: wait, instead of raising."""
        import obstore  # noqa: PLC0415 - only if there is an object store

        self._obstore: Any = obstore
        self._errors: Any = obstore.exceptions
        self._store = store
        self._watch = watch
        self._patient = patient

    @classmethod
    def at(
        cls, url: str, *, watch: Callable[[], AbstractContextManager[None]] = nullcontext, patient: bool = False
    ) -> "Objects":
        """Open the object store at a URL: s3://bucket/prefix, gs://..., az://account/container/..., file:///folder.

        Credentials and endpoint come from the environment variables of its maker, such as AWS_ACCESS_KEY_ID and
        AWS_ENDPOINT_URL. Nothing is sent yet. Raises ObjectsRefused.
        """
        try:
            import obstore  # noqa: PLC0415 - as above
        except ImportError as err:
            raise ObjectsRefused(f"object stores need another package: {NEEDS}") from err
        _check_endpoint(url)
        stores: Any = obstore.store
        try:
            if url.startswith("file:"):
                return cls(stores.from_url(url, mkdir=True), watch=watch, patient=patient)
            store = stores.from_url(
                url,
                client_options={
                    "allow_http": True,  # if the endpoint that the environment names is one
                    "connect_timeout": timedelta(seconds=2),
                    "read_timeout": timedelta(seconds=_SILENT_S),
                    "timeout": timedelta(hours=24),  # of a whole file
                },
                retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=5)},
            )
        except Exception as err:
            raise ObjectsRefused(f"the object store cannot be opened: check its URL and {_settings_of(url)}") from err
        return cls(store, watch=watch, patient=patient)

    @property
    def hasty(self) -> "Objects":
        """The same objects for optional work: ObjectsUnavailable is raised at once."""
        return Objects(self._store, watch=self._watch) if self._patient else self

    def put(self, key: str, content: bytes | Path) -> bool:
        """Put an object. Returns False, and changes nothing, if there is one of that name. Raises OSError of a file."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if size > _AT_ONCE and self.exists(key):
            return False

        def put() -> bool:
            if size > _AT_ONCE:
                self._obstore.put(self._store, key, content, chunk_size=_PIECE, max_concurrency=2)
                return True
            try:
                self._obstore.put(self._store, key, content, mode="create")
            except (self._errors.AlreadyExistsError, self._errors.PreconditionError):
                return False
            return True

        def put_into_bucket() -> bool:
            try:
                return put()
            except FileNotFoundError as err:
                if isinstance(content, Path) and not content.exists():
                    raise
                raise _NoBucket(_ABSENT, "no such bucket") from err

        return self._access(put_into_bucket)

    def read(self, key: str) -> Iterator[bytes]:
        """Yield the content of an object in pieces. Raises FileNotFoundError, and ObjectsUnavailable also if patient:
        a caller that has read some of it has to begin again, see `insist`.
        """
        pieces = self._once(lambda: iter(self._obstore.get(self._store, key).stream(min_chunk_size=_PIECE)))
        while (piece := self._once(lambda: next(pieces, None))) is not None:
            yield bytes(piece)

    def content(self, key: str) -> bytes:
        """Return the content of a small object. Raises FileNotFoundError."""
        return self._access(lambda: bytes(self._obstore.get(self._store, key).bytes()))

    def exists(self, key: str) -> bool:
        """Return whether there is an object of that name."""
        try:
            self._access(lambda: self._obstore.head(self._store, key))
        except FileNotFoundError:
            return False
        return True

    def below(self, folder: str) -> list[Found]:
        """Return the objects in a folder and in the folders in it, by key. The empty name is the outermost folder."""

        def collected() -> list[Found]:
            listed = self._obstore.list(self._store, folder or None).collect()
            return [Found(one["path"], one["size"], one["last_modified"].timestamp()) for one in listed]

        return sorted(self._access(collected), key=lambda found: found.key)

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder."""
        listed = self._access(lambda: self._obstore.list_with_delimiter(self._store, folder))
        return sorted(path.rpartition("/")[2] for path in listed["common_prefixes"])

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error."""

        def delete() -> None:
            for key in keys:  # in one request, a file that another process has deleted would end it
                try:
                    self._obstore.delete(self._store, key)
                except FileNotFoundError:
                    continue

        self._access(delete)

    def probe(self) -> None:
        """Find out whether of several conditional puts of one object exactly one wins.

        Raises ObjectsRefused if not, or if there is no such bucket.
        """
        key = f"probes/{uuid4().hex}/probe"

        def rival(number: int) -> bool:
            try:
                return self.put(key, b"%d" % number)
            except ObjectsUnavailable as err:
                if _is_about_bucket(err):
                    raise ObjectsRefused(_ABSENT) from err
                raise

        with ThreadPoolExecutor(_RIVALS) as threads:
            winners = [number for number, won in enumerate(threads.map(rival, range(_RIVALS))) if won]
        winner = self.content(key)
        self.delete([key])
        if [b"%d" % number for number in winners] != [winner]:
            raise ObjectsRefused(_IGNORANT)

    def insist(self, action: Callable[[], T]) -> T:
        """Do something with objects; again and again, if patient. Raises ObjectsUnavailable."""
        while True:
            try:
                return action()
            except ObjectsUnavailable:
                if not self._patient:
                    raise
            time.sleep(_RETRY_S)

    def _access(self, action: Callable[[], T]) -> T:
        return self.insist(lambda: self._once(action))

    def _once(self, action: Callable[[], T]) -> T:
        with self._watch():
            try:
                return action()
            except self._errors.BaseError as err:
                raise ObjectsUnavailable(_DENIED if _status(err) in {401, 403} else _AWAY, _why(err)) from err


def _is_about_bucket(err: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised from, says that there is no bucket."""
    return err is not None and (isinstance(err, _NoBucket) or _is_about_bucket(err.__cause__))


def _why(err: BaseException) -> str:
    """Return the cause that an error of obstore names: a status, or an error of the system or of the protocol.

    Its other text stays out: a URL may have a signature in it, and the answer of a server the id of a key.
    """
    text = str(err)
    if status := _status(err):
        code = re.search(r"<Code>(\w{1,60})</Code>", text)
        return f"status {status}, {code[1]}" if code else f"status {status}"
    if error := re.search(r'(?:message|error): "([^"]{1,200})"', text):
        return error[1]
    said = re.sub(r"\S*://\S*", "...", text.partition("\n")[0]).rpartition(" - ")[2]
    kinds = ", ".join(dict.fromkeys(re.findall(r"kind: (\w+)", text)))
    return f"{said[:200]} ({kinds})" if kinds else said[:200]


def _status(err: BaseException) -> int | None:
    """Return the status of the answer that an error of obstore is about: of lists it has no errors for a 403."""
    found = re.search(r"status code: (\d{3})", str(err))
    return int(found[1]) if found else None


def _check_endpoint(url: str) -> None:
    """Raise ObjectsRefused for an endpoint in the environment that is not a URL: obstore would panic."""
    for name in _ENDPOINTS.get(url.partition(":")[0], ()):
        if (value := os.environ.get(name)) and not _is_http(value):
            raise ObjectsRefused(f"{name} is no URL of a server: write it as https://minio.example:9000")


def _is_http(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0
            and value.isascii()
            and (not re.search(r"\s", value))
        )
    except ValueError:  # of the port
        return False


def _settings_of(url: str) -> str:
    """Return the beginning of the names of the variables that configure the store at a URL."""
    prefixes = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_STORAGE_"}
    return f"the variables {prefixes.get(url.partition(':')[0], 'AWS_')}*"
