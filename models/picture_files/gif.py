"""Strip GIF files: drop comments and application data in front of the first frame.

Source: GIF89a Specification, sections 17 to 26 (header, screen descriptor, blocks).
"""

from models.picture_files.stripped import Stripped, damaged_picture

MAGICS = b"GIF87a", b"GIF89a"
_HEADER = 13  # bytes: magic and logical screen descriptor
_FRAME_HEADER = 10  # bytes; its last one has the flags of the colour table
_EXTENSION, _FRAME, _GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9
_MOST_BLOCKS = 70_000


def strip(content: bytes) -> Stripped:
    """Drop the extension blocks in front of the first frame, except a graphic control block: it has the transparency.

    Raises InvalidInput if there are too many blocks.
    """
    if len(content) < _HEADER:
        return Stripped(())
    flags = content[10]
    position = _HEADER + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    kept = [content[:position]]
    blocks = 0
    while content[position : position + 1] != bytes([_FRAME]):
        if position >= len(content):
            return Stripped(())
        if content[position] != _EXTENSION:  # as browsers do, skip bytes between blocks
            position += 1
            blocks += 1
        else:
            start, label = position, content[position + 1 : position + 2]
            position, count = _after_blocks(content, position + 2)
            blocks += count
            if label == bytes([_GRAPHIC_CONTROL]) and content[start + 2 : start + 3] == b"\x04":
                kept.append(content[start:position])
        if blocks > _MOST_BLOCKS:
            raise damaged_picture("the picture has too many metadata blocks")
    data = position + _FRAME_HEADER
    if data < len(content) and content[data - 1] & 0x80:
        data += 3 << ((content[data - 1] & 7) + 1)
    if _after_blocks(content, data + 1)[0] > len(content) + 1:
        return Stripped(())
    return Stripped((b"".join(kept) + content[position:],))


def _after_blocks(content: bytes, position: int) -> tuple[int, int]:
    """Return the offset after a list of data blocks, past the end if it is cut off, and the number of blocks."""
    count = 0
    while size := int.from_bytes(content[position : position + 1]):
        position += 1 + size
        count += 1
    return position + 1, count
