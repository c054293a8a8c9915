"""Thrift's compact protocol, as far as headers of Parquet pages use it: structs of numbers, binaries and lists."""

from typing import Any

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)  # of 16, 32 and 64 bits
_LONG = 15  # a list's length that follows
_DEEPEST = 16


class Damaged(ValueError):
    """The bytes are not a struct, or it is incomplete."""


def read_struct(content: bytes) -> tuple[dict[int, Any], int]:
    """Return the fields of the struct that begins the content, by number, and its length. Raises Damaged."""
    reader = _Reader(content)
    try:
        return reader.struct(0), reader.place
    except IndexError as err:
        raise Damaged("the struct is cut short") from err


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.place = 0

    def struct(self, depth: int) -> dict[int, Any]:
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            found[number] = head & 15 == _TRUE if head & 15 in {_TRUE, _FALSE} else self._value(head & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise Damaged("the struct is too deep")
        if kind in _INTEGERS:
            return self._zigzag()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in {_LIST, _SET}:
            head = self._byte()
            count = self._varint() if head >> 4 == _LONG else head >> 4
            return [self._value(head & 15, depth + 1) for _ in range(min(count, len(self._content)))]
        if kind in {_TRUE, _FALSE, _BYTE}:  # booleans in a list
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BINARY:
            return self._bytes(self._varint())
        raise Damaged("a field of an unknown type")

    def _byte(self) -> int:
        value = self._content[self.place]
        self.place += 1
        return value

    def _bytes(self, count: int) -> bytes:
        if count > len(self._content) - self.place:
            raise Damaged("a value is cut short")
        self.place += count
        return self._content[self.place - count : self.place]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise Damaged("a number is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
