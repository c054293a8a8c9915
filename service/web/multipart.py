"""Parse multipart forms of files."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers

from models.errors import InvalidInput, TooManySamples
from service.errors import Malformed, TooLarge
from service.media_types import is_file, plain

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FILES = 256  # in one multipart form; as many other fields
_MAX_TEXTS = 4096  # in a form with a field for each input of each sample
_FILE_NAME = re.compile(rb";\s*filename\*?\s*=\s*([^;]*)", re.IGNORECASE)  # also filename*, the form of RFC 8187


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a form. File names from the client are ignored."""

    name: str
    content: bytes
    is_file: bool


class _Part:
    """One part: its headers and content."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.content = bytearray()
        self.name = b""  # of the header that is being read
        self.value = b""

    @property
    def media_type(self) -> str:
        """Its Content-Type without parameters."""
        return plain(self.headers.get(b"content-type", b"").decode("latin-1"))

    @property
    def is_file(self) -> bool:
        """Whether it has a file name or the media type of a file. A file input that was left empty is none."""
        found = _FILE_NAME.search(self.headers.get(b"content-disposition", b""))
        if found is None:
            return is_file(self.media_type)
        return bool(self.content) or found[1].strip() not in {b"", b'""'}

    def field(self, *, is_file: bool) -> Field:
        """Return the part as a field."""
        _, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        return Field(options.get(b"name", b"").decode("utf-8", "replace"), bytes(self.content), is_file)


class _Form:
    """Collects the files, and text fields if `max_texts` is given. Records the final boundary: without that, a
    truncated form looks like a shorter one.
    """

    def __init__(self, max_texts: int | None = None) -> None:
        self.fields: list[Field] = []
        self.ended = False
        self._files = 0
        self._texts = 0
        self._max_texts = max_texts
        self._part = _Part()

    def callbacks(self) -> "MultipartCallbacks":
        """Return the parser's callbacks."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._form_end,
        }

    def _begin(self) -> None:
        self._part = _Part()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._part.name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def _header_end(self) -> None:
        part = self._part
        part.headers[part.name.lower()] = part.value
        part.name = part.value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._part.content += data[start:end]

    def _end(self) -> None:
        """Keep a file; count a text field, and discard it unless it is wanted."""
        is_file = self._part.is_file
        if is_file:
            self._files += 1
        else:
            self._texts += 1
        if self._files > MAX_FILES:
            raise TooManySamples(MAX_FILES + 1, MAX_FILES)
        if self._texts > (self._max_texts or MAX_FILES):
            others = "" if self._max_texts else ": leave out those that are not pictures"
            raise TooLarge(f"the form has more than {self._max_texts or MAX_FILES} text fields{others}")
        if is_file or self._max_texts:
            self.fields.append(self._part.field(is_file=is_file))

    def _form_end(self) -> None:
        self.ended = True


def files(headers: Headers, content: bytes) -> list[bytes]:
    """Return the content of each file of a multipart body. File names from the client are ignored.

    A part is a file if it has a file name, or the media type of a picture. Other fields are ignored.
    Raises Malformed, TooManySamples, or InvalidInput if there is no file.
    """
    form = _parsed(headers, content, _Form())
    if not form.fields:
        raise InvalidInput(
            "No file",
            f"the form holds no file; send 1 to {MAX_FILES} pictures, each as a part with a file name or "
            "a Content-Type such as image/png",
        )
    return [field.content for field in form.fields]


def fields(headers: Headers, content: bytes) -> list[Field]:
    """Return all fields of a multipart body, in order. Raises Malformed, TooManySamples, TooLarge."""
    return _parsed(headers, content, _Form(_MAX_TEXTS)).fields


def _parsed(headers: Headers, content: bytes, form: _Form) -> _Form:
    boundary = parse_options_header(headers["content-type"])[1].get(b"boundary")
    if not boundary:
        raise Malformed("the multipart body cannot be read: its Content-Type names no boundary")
    try:
        MultipartParser(boundary, form.callbacks()).write(content)
    except FormParserError as err:
        raise Malformed(f"the multipart body cannot be read: {err}") from err
    if not form.ended:
        raise Malformed("the multipart body cannot be read: it ends before its last boundary")
    return form
