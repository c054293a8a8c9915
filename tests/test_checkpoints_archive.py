"""Files that declare more than they hold: refused before anything is unpacked or allocated."""

import io
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.checkpoints import archive
from models.checkpoints.state_dict import restore
from models.errors import CheckpointError
from models.spec import ModelSpec
from tests.checkpoint_files import bomb, rezipped, safetensors_of, saved, with_pickle
from tests.fakes import LINE, ROOT, Line

GOOD = saved(Line(slope=5).state_dict())
_MAY_TAKE = 100 * 2**20  # bytes


def restored(content: bytes, spec: ModelSpec = LINE, **arguments: Any) -> nn.Module:
    return restore(spec, arguments, content, "the file")[0]


def test_a_small_archive_that_was_compressed_is_read() -> None:
    network = restored(rezipped(GOOD, method=zipfile.ZIP_DEFLATED))
    assert network.state_dict()["slope"].item() == 5


MEASURE = """
import resource, sys
from pathlib import Path
import psutil
from models.checkpoints.state_dict import restore
from models.errors import CheckpointError
from tests.fakes import LINE
restore(LINE, {}, Path(sys.argv[1]).read_bytes(), "the file")  # what PyTorch allocates once
most = psutil.Process().memory_info().vms + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for path in map(Path, sys.argv[3:]):
    try:
        restore(LINE, {}, path.read_bytes(), "the file")
    except CheckpointError as err:
        sys.stdout.write(f"{err}\\n")
"""


@pytest.mark.slow
def test_s18_bombs_are_refused_by_their_declared_size_and_take_no_memory(tmp_path: Path) -> None:
    contents = [
        bomb(512), bomb(512, "data.pkl"), bomb(512, "version"),
        with_pickle(b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\0\0\0\x80\0\x85R."),
        with_pickle(b"\x80\x02ctorch\nTensor\n\x8a\x05\0\0\0\x80\0\x85R."),
    ]  # fmt: skip
    paths = [tmp_path / f"{number}.pt" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        assert len(content) < 4 * 2**20
        path.write_bytes(content)
    good = tmp_path / "good.pt"
    good.write_bytes(GOOD)
    command = [sys.executable, "-c", MEASURE, str(good), str(_MAY_TAKE), *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    refusals = done.stdout.splitlines()
    assert ["536,870,912 bytes" in refusal or "unpacks to 536,8" in refusal for refusal in refusals] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert ["bytearray" in refusals[3], "torch.Tensor" in refusals[4]] == [True, True]


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("data/0", r"unpacks to 9,43.* Write it with torch\.save"),
        ("version", r"unpacks to 9,43.* Write it with torch\.save"),
        ("data.pkl", "its data.pkl has 9,437,184 bytes, more than those of any state_dict"),
    ],
)
def test_a_member_that_inflates_to_more_than_the_network_is_refused(member: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        restored(bomb(9, member))


def fields(content: bytes, header: bytes, offset: int, form: str, value: int) -> bytes:
    """Change one field of the last such header."""
    changed = bytearray(content)
    struct.pack_into(form, changed, content.rindex(header) + offset, value)
    return bytes(changed)


WRONG = {
    "a packed size of 4 GB": fields(GOOD, b"PK\x01\x02", 20, "<L", 2**32 - 2),
    "an unpacked size of 4 GB": fields(GOOD, b"PK\x01\x02", 24, "<L", 2**32 - 2),
    "both sizes of 4 GB": fields(fields(GOOD, b"PK\x01\x02", 20, "<L", 2**32 - 2), b"PK\x01\x02", 24, "<L", 2**32 - 2),
    "an offset beyond the end": fields(GOOD, b"PK\x01\x02", 42, "<L", 2**31),
    "an unknown compression": fields(GOOD, b"PK\x01\x02", 10, "<H", 99),
    "a name of 64 kB": fields(GOOD, b"PK\x01\x02", 28, "<H", 2**16 - 1),
    "a directory elsewhere": fields(GOOD, b"PK\x06\x06", 48, "<Q", 4),
    "a directory beyond the end": fields(GOOD, b"PK\x06\x06", 48, "<Q", 2**63),
    "a directory of 2^60 bytes": fields(GOOD, b"PK\x06\x06", 40, "<Q", 2**60),
    "2^60 members": fields(GOOD, b"PK\x06\x06", 32, "<Q", 2**60),
    "no member": fields(GOOD, b"PK\x06\x06", 32, "<Q", 0),
    "an end record elsewhere": fields(GOOD, b"PK\x06\x07", 8, "<Q", 2**40),
    "only an end record": b"PK\x03\x04" + b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_directory_with_wrong_sizes_is_refused(wrong: str) -> None:
    with pytest.raises(CheckpointError, match="the file is not a state_dict file"):
        restored(WRONG[wrong])


def with_member(name: str, content: bytes) -> bytes:
    """The good archive, and one more member."""
    file = io.BytesIO(rezipped(GOOD))
    with zipfile.ZipFile(file, "a") as added:
        added.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize("name", ["archive/data/0", "archive/DATA/0", "ARCHIVE/data.PKL"])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_members_of_one_name_are_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="it has 2 members named"):
        restored(with_member(name, b"0000"))


def test_a_second_pickle_in_another_folder_is_not_the_one_that_is_checked() -> None:
    """PyTorch reads the one in the folder of the first member."""
    evil = with_pickle(b"\x80\x02cbuiltins\nbytearray\nK\x01\x85R.")
    file = io.BytesIO(evil)
    with zipfile.ZipFile(file, "a") as added:
        added.writestr("other/data.pkl", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="bytearray"):
        restored(file.getvalue())


@pytest.mark.slow
def test_every_truncation_and_every_damaged_byte_of_an_archive_is_an_error_or_read() -> None:
    for length in range(0, len(GOOD), 7):
        with pytest.raises(CheckpointError):
            restored(GOOD[:length])
    read = 0
    for at in range(0, len(GOOD), 3):
        content = GOOD[:at] + bytes([GOOD[at] ^ 0x55]) + GOOD[at + 1 :]
        try:
            restored(content)
            read += 1
        except CheckpointError:
            pass
    assert read  # padding and numbers may change


@pytest.mark.slow
def test_every_damaged_byte_of_the_pickle_is_an_error_or_read() -> None:
    with zipfile.ZipFile(io.BytesIO(GOOD)) as opened:
        pickled = opened.read("archive/data.pkl")
        storage = opened.read("archive/data/0")
    for at in range(len(pickled)):
        for change in (0x01, 0x20, 0xFF):
            damaged = pickled[:at] + bytes([pickled[at] ^ change]) + pickled[at + 1 :]
            content = rezipped(GOOD, changed={"data.pkl": damaged, "data/0": storage})
            try:
                restored(content)
            except CheckpointError as err:
                str(err).encode()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("builtins\nset", "an object of the class builtins.set"),
        ("__main__\nNet", "an object of the class __main__.Net"),
        ("omegaconf.dictconfig\nDictConfig", "an object of the class omegaconf.dictconfig.DictConfig"),
        ("numpy.core.multiarray\nscalar", "an object of the class numpy.core.multiarray.scalar"),
        ("posix\nsystem", "an object of the class posix.system"),
        ("torch._utils\n_rebuild_qtensor", "a quantised tensor: save its dequantize()"),
        ("torch._utils\n_rebuild_nested_tensor", "a nested tensor"),
        ("torch._utils\n_rebuild_wrapper_subclass", "a tensor subclass"),
        ("torch.distributed.tensor\nDTensor", "a DTensor: save its full_tensor()"),
        ("<script>\nalert", "an object of another class"),
    ],
)
def test_s05_an_object_of_a_class_is_named_with_its_key(found: str, words: str) -> None:
    pickled = b"\x80\x02}X\x05\0\0\0slopec" + found.encode() + b"\n)Rs."
    with pytest.raises(CheckpointError, match="not a state_dict file: slope is ") as raised:
        restored(with_pickle(pickled))
    assert words in str(raised.value)


def test_the_names_of_pytorchs_own_files_are_known() -> None:
    assert archive.check(GOOD, "the file") < len(GOOD)


class Wide(nn.Module):
    """A network of any width, whose constructor works on the meta device."""

    def __init__(self, *, width: int = 4, depth: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))


WIDE = ModelSpec(**{**vars(LINE), "network": Wide})


@pytest.mark.parametrize(
    "arguments", [{"width": 2**31}, {"width": 2**20}, {"width": 2**40}, {"width": 10**6, "depth": 9}]
)
def test_a_network_much_larger_than_the_file_is_not_allocated(arguments: dict[str, int]) -> None:
    with pytest.raises(CheckpointError, match=r"bytes of weights, the file only|rejects the constructor arguments"):
        restored(saved(Wide().state_dict()), WIDE, **arguments)


def test_an_expanded_tensor_does_not_allocate_what_it_declares() -> None:
    state = {"layers.0.weight": torch.ones(1).expand(2**16, 2**16), "layers.0.bias": torch.ones(1).expand(2**16)}
    with pytest.raises(CheckpointError, match="bytes of weights, the file only"):
        restored(saved(state), WIDE, width=2**16)


@pytest.mark.parametrize("given", [{}, {"width": 3}])
def test_a_file_of_another_width_gets_the_arguments_that_fit(given: dict[str, int]) -> None:
    with pytest.raises(CheckpointError, match=r"has shape \(20, 20\) instead of") as raised:
        restored(saved(Wide(width=20).state_dict()), WIDE, **given)
    assert '?arguments={"width": 20}' in str(raised.value)


def test_a_file_that_no_single_argument_fits_names_the_arguments() -> None:
    with pytest.raises(CheckpointError, match=r"other constructor arguments \(width, depth\)"):
        restored(saved(Wide(width=20, depth=3).state_dict()), WIDE)


def test_a_constructor_that_builds_without_end_is_stopped() -> None:
    with pytest.raises(CheckpointError, match=r"more than 67,108,864 bytes of weights, the file only"):
        restored(saved(Wide().state_dict()), WIDE, width=2**11, depth=2**60)


class Buffers(nn.Module):
    """A network of buffers, as tables of positions are."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        for number in range(width):
            self.register_buffer(f"table{number}", torch.zeros(width, width))


def test_buffers_count_as_weights_do() -> None:
    with pytest.raises(CheckpointError, match="bytes of weights, the file only"):
        restored(saved(Buffers().state_dict()), ModelSpec(**{**vars(LINE), "network": Buffers}), width=2**20)


def test_a_file_with_other_keys_gets_no_word_about_arguments() -> None:
    with pytest.raises(CheckpointError, match="does not fit the network") as raised:
        restored(saved({"conv.weight": torch.ones(1)}), WIDE)
    assert "arguments" not in str(raised.value)


def test_a_prefix_does_not_hide_the_arguments_that_fit() -> None:
    state = {f"module.{key}": tensor for key, tensor in Wide(width=20).state_dict().items()}
    with pytest.raises(CheckpointError, match=r'\?arguments={"width": 20}'):
        restored(saved(state), WIDE)
    assert restored(saved(state), WIDE, width=20).state_dict()["layers.0.bias"].shape == (20,)


class NeedsNumbers(Wide):
    """A network whose constructor reads numbers, which tensors on the meta device do not have."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__(width=int(torch.tensor(width).item()))


def test_a_constructor_that_needs_numbers_is_built_as_usual() -> None:
    spec = ModelSpec(**{**vars(LINE), "network": NeedsNumbers})
    network = restored(saved(Wide(width=6).state_dict()), spec, width=6)
    assert network.state_dict()["layers.0.weight"].shape == (6, 6)
    with pytest.raises(CheckpointError, match="bytes of weights, the file only"):
        restored(saved(Wide(width=6).state_dict()), spec, width=2**13)


@pytest.mark.parametrize(
    "arguments",
    [{"depth": "x"}, {"width": None}, {"width": [1]}, {"width": -1}, {"x": 1}, {"width": 2**70}, {"width": 0.5}],
    ids=str,
)
def test_arguments_that_the_constructor_rejects_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="the network rejects the constructor arguments"):
        restored(saved(Wide().state_dict()), WIDE, **arguments)


TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
HEADERS: dict[str, bytes] = {
    "a header of 2^63 bytes": safetensors_of({"slope": TENSOR}, bytes(4), length=2**63),
    "a header longer than the file": safetensors_of({"slope": TENSOR}, bytes(4), length=1000),
    "a header of no byte": struct.pack("<Q", 0) + b"{}",
    "a header that is no JSON": safetensors_of(b"{" + b"[" * 100, bytes(4)),
    "a deep header": safetensors_of(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "a header with a lone surrogate": safetensors_of(b'{"\\ud800":' + json.dumps(TENSOR).encode() + b"}", bytes(4)),
    "a header that is not UTF-8": safetensors_of(b'{"\xff\xfe":' + json.dumps(TENSOR).encode() + b"}", bytes(4)),
    "a tensor beyond the end": safetensors_of({"slope": {**TENSOR, "data_offsets": [0, 2**40]}}, bytes(4)),
    "a tensor before the start": safetensors_of({"slope": {**TENSOR, "data_offsets": [-4, 0]}}, bytes(4)),
    "offsets in the wrong order": safetensors_of({"slope": {**TENSOR, "data_offsets": [4, 0]}}, bytes(4)),
    "a shape of 2^62 numbers": safetensors_of({"slope": {**TENSOR, "shape": [2**62]}}, bytes(4)),
    "a shape whose product overflows": safetensors_of({"slope": {**TENSOR, "shape": [2**40, 2**40]}}, bytes(4)),
    "a negative shape": safetensors_of({"slope": {**TENSOR, "shape": [-1]}}, bytes(4)),
    "an unknown dtype": safetensors_of({"slope": {**TENSOR, "dtype": "F5"}}, bytes(4)),
    "a dtype that is no text": safetensors_of({"slope": {**TENSOR, "dtype": 1}}, bytes(4)),
    "two tensors on the same bytes": safetensors_of({"slope": TENSOR, "offset": TENSOR}, bytes(4)),
    "bytes that no tensor has": safetensors_of({"slope": TENSOR}, bytes(400)),
    "a tensor that is a number": safetensors_of({"slope": 1}, bytes(4)),
    "no tensor": safetensors_of({}),
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_damaged_safetensors_header_is_refused(header: str) -> None:
    with pytest.raises(CheckpointError, match=r"the file|does not fit"):
        restored(HEADERS[header])


@pytest.mark.parametrize(
    "dtype", ["F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E5M2", "F8_E4M3", "U16", "U32", "U64", "BOOL", "C64"]
)
def test_every_safetensors_dtype_is_refused_by_its_name_or_as_a_file(dtype: str) -> None:
    size = {"16": 2, "32": 4, "64": 8}.get(dtype[-2:], 1)
    shape = {"F4": [2], "F6_E2M3": [4], "F6_E3M2": [4]}.get(dtype, [1])
    size = 3 if dtype.startswith("F6") else size
    header = {"slope": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
    good = {"offset": {"dtype": "F32", "shape": [1], "data_offsets": [size, size + 4]}}
    with pytest.raises(CheckpointError, match=r"slope|safetensors"):
        restored(safetensors_of({**header, **good}, bytes(size + 4)))
