"""A damaged byte of an uploaded archive is an error, or changes no number: PyTorch itself compares no checksums."""

import io
import zipfile

import pytest
import torch

from models.checkpoints.state_dict import restore
from models.errors import CheckpointError
from tests.checkpoint_files import rezipped, saved
from tests.fakes import LINE, Line

STATE = Line(slope=5).state_dict()
FORMS = {
    "as torch.save writes it": saved(STATE),
    "compressed": rezipped(saved(STATE), method=zipfile.ZIP_DEFLATED),
    "half precision": saved({key: tensor.half() for key, tensor in STATE.items()}),
}


def numbers(content: bytes) -> list[float]:
    network, _ = restore(LINE, {}, content, "the file")
    return [float(number) for tensor in network.state_dict().values() for number in tensor.flatten()]


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_every_damaged_byte_is_an_error_or_changes_no_number(content: bytes, change: int) -> None:
    good = numbers(content)
    refused = 0
    for at in range(len(content)):
        damaged = content[:at] + bytes([content[at] ^ change]) + content[at + 1 :]
        try:
            assert numbers(damaged) == good, f"byte {at}"
        except CheckpointError:
            refused += 1
    assert refused > len(content) // 4


def test_a_member_that_is_marked_as_a_folder_is_refused() -> None:
    """PyTorch would leave its memory as it is: numbers of whatever lay there before, for whoever downloads them."""
    content = saved(STATE)
    at = content.index(b"archive/data/0", content.index(b"PK\x01\x02")) - 46
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        numbers(content[: at + 38] + b"\x10" + content[at + 39 :])


def test_the_damaged_member_is_named() -> None:
    content = saved({"slope": torch.tensor(5.0), "more": torch.arange(20.0)})
    at = content.index(torch.arange(20.0).numpy().tobytes())
    damaged = content[: at + 8] + b"\0" + content[at + 9 :]
    with pytest.raises(CheckpointError, match=r"archive/data/1 is damaged \(CRC-32 differs\)"):
        numbers(damaged[:at] + b"\x01" + damaged[at + 1 :])


def test_a_file_without_checksums_is_read() -> None:
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        content = saved(STATE)
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        assert not any(member.CRC for member in opened.infolist())
    assert numbers(content) == numbers(FORMS["as torch.save writes it"])
