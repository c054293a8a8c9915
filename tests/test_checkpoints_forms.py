"""Files of other formats, and checkpoints around a state_dict: named, with the way out."""

import io
import tarfile
import zipfile
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from models.checkpoints.state_dict import read_state, restore
from models.errors import CheckpointError
from tests.checkpoint_files import saved
from tests.fakes import LINE, Line

GOOD = saved(Line(slope=5).state_dict())


def restored(content: bytes) -> nn.Module:
    return restore(LINE, {}, content, "the file")[0]


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zip_of(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name in names:
            opened.writestr(name, b"x")
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as opened:
        opened.addfile(tarfile.TarInfo("weights.pt"))
    return file.getvalue()


def script() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.ones(1, 1)), file)  # type: ignore[no-untyped-call]
    return file.getvalue()


def exported() -> bytes:
    file = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(1, 1), (torch.ones(1, 1),)), file)
    return file.getvalue()


def onnx() -> bytes:
    file = io.BytesIO()
    torch.onnx.export(nn.Linear(1, 1), (torch.ones(1, 1),), file, dynamo=False)  # type: ignore[arg-type]
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


FORMS: dict[str, tuple[Any, str]] = {
    "nothing": (lambda: b"", "it is empty"),
    "white space": (lambda: b" \n", "it is empty"),
    "the old form": (lambda: saved(Line().state_dict(), _use_new_zipfile_serialization=False), "before PyTorch 1.6"),
    "TorchScript": (script, "a TorchScript file. Convert it with torch.save(torch.jit.load"),
    "torch.export": (exported, "a torch.export file. Convert it with torch.save("),
    "ONNX": (onnx, "an ONNX file"),
    "a pickled network": (lambda: saved(Line()), "an object of the class tests.line.Line"),
    "scikit-learn": (lambda: b"\x80\x04\x95\x17\0csklearn.linear_model._base\nLinearRegression\n.", "of scikit-learn"),
    "XGBoost, pickled": (lambda: b"\x80\x04\x95\x17\0cxgboost.sklearn\nXGBClassifier\n.", "a pickled object of"),
    "a pickle": (lambda: b"\x80\x04\x95\x17\0}.", "a pickled object, which is never unpickled"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 file"),
    "Keras": (lambda: zip_of("metadata.json", "config.json", "model.weights.h5"), "a Keras file"),
    "npz": (lambda: npz(slope=np.ones(1)), "an archive of NumPy arrays (.npz)"),
    "npy": (array, "a NumPy array (.npy)"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(50), "compressed with gzip. Decompress it with gunzip"),
    "bzip2": (lambda: b"BZh91AY&SY" + bytes(50), "compressed with bzip2"),
    "xz": (lambda: b"\xfd7zXZ\0" + bytes(50), "compressed with xz"),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" + bytes(50), "compressed with zstd"),
    "tar": (tar, "a tar archive"),
    "mar": (lambda: zip_of("MAR-INF/MANIFEST.json", "model.pt"), "a TorchServe archive (.mar)"),
    "a zip of the file": (lambda: zip_of("weights.pt"), "a zip archive without data.pkl"),
    "an empty zip": (lambda: b"PK\x05\x06" + bytes(18), "a zip archive without members"),
    "TensorFlow": (lambda: b"\x08\x01\x12\x20" + bytes(50), "a TensorFlow SavedModel"),
    "TensorFlow Lite": (lambda: b"\x1c\0\0\0TFL3" + bytes(50), "a TensorFlow Lite file"),
    "GGUF": (lambda: b"GGUF\x03" + bytes(50), "a GGUF file"),
    "Git LFS": (lambda: b"version https://git-lfs.example/spec/v1\noid sha256:1\n", "a pointer of Git LFS"),
    "a web page": (lambda: b"\n<!DOCTYPE html><html>", "a web page or XML"),
    "XGBoost, JSON": (lambda: b'{"learner":{"attributes":{}},"version":[2,1,3]}', "an XGBoost model. Only PyTorch"),
    "XGBoost, UBJSON": (lambda: b"{L" + bytes(7) + b"\x07learner{", "an XGBoost model (UBJSON). Only PyTorch"),
    "LightGBM": (lambda: b"tree\nversion=v4\nnum_class=1\n", "a LightGBM model. Only PyTorch"),
    "CatBoost": (lambda: b"CBM1" + bytes(50), "a CatBoost model. Only PyTorch"),
    "JSON": (lambda: b'{"slope": [2.0]}', "JSON"),
    "a form": (lambda: b"--x\r\nContent-Disposition: form-data; name=f\r\n\r\n" + GOOD, "curl --data-binary @FILE"),
    "noise": (lambda: bytes(range(100, 200)), "its format is unknown, or it is damaged"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_file_of_another_form_is_named_with_the_way_out(form: str) -> None:
    make, words = FORMS[form]
    with pytest.raises(CheckpointError, match="the file is not a state_dict file: ") as raised:
        read_state(make(), "the file")
    assert words in str(raised.value)


STATE = Line(slope=5).state_dict()
WRAPPED: dict[str, tuple[object, str]] = {
    "state_dict and epoch": ({"state_dict": STATE, "epoch": 3}, "state_dict"),
    "the tutorial's": (
        {"epoch": 1, "model_state_dict": STATE, "optimizer_state_dict": {"state": {}, "param_groups": []}, "loss": 0.5},
        "model_state_dict",
    ),
    "with the state of Adam": (
        {"model": STATE, "optimizer": {"state": {0: {"step": torch.ones(1), "exp_avg": torch.ones(1)}}}},
        "model",
    ),
    "nested": ({"model": {"state_dict": STATE, "step": 1}, "args": [1]}, "model.state_dict"),
    "another name": ({"my_weights": STATE}, "my_weights"),
    "Lightning": (
        {
            "state_dict": {f"net.{key}": tensor for key, tensor in STATE.items()},
            "epoch": 1,
            "pytorch-lightning_version": "2.5",
            "hyper_parameters": {"lr": 0.1},
            "callbacks": {},
            "optimizer_states": [],
        },
        "state_dict",
    ),
    "odd keys": ({1: 2, None: STATE, "state_dict": STATE}, "state_dict"),
    **{key: ({key: STATE}, key) for key in ("state_dict", "model_state_dict", "model", "network", "net", "weights")},
}  # fmt: skip


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_the_only_state_dict_of_a_checkpoint_is_read_and_noted(wrapped: str) -> None:
    value, place = WRAPPED[wrapped]
    network, notes = restore(LINE, {}, saved(value), "the file")
    assert network.state_dict()["slope"].item() == 5
    assert notes[0] == f"weights read from the entry {place}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"generator": STATE, "discriminator": STATE}, "under generator or discriminator"),
        ({"model": STATE, "ema": {"shadow": STATE}, "epoch": 1}, "under model or ema.shadow"),
    ],
    ids=["two networks", "with averaged weights"],
)
def test_a_checkpoint_with_several_state_dicts_says_where_they_are(value: object, words: str) -> None:
    with pytest.raises(CheckpointError, match=r"save the one to serve, with torch\.save\(") as raised:
        restored(saved(value))
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({**STATE, "epoch": 3, "lr": 0.1}, r"values that are not tensors: epoch \(int\), lr \(float\)"),
        ({1: torch.ones(1)}, r"keys that are not text: 1 \(int\)"),
        (torch.ones(1), "an object of type Tensor"),
        ([torch.ones(1)], "an object of type list"),
        (3, "an object of type int"),
        (None, "an object of type NoneType"),
        ({"a": {"b": {"c": {"d": STATE}}}}, r"values that are not tensors: a \(dict\)"),
        ({"\ud800": 1}, r"not tensors: \\ud800 \(int\)"),
        ({"\ud800": torch.ones(1)}, r"unexpected \\ud800"),
    ],
    ids=str,
)
def test_other_contents_are_named_by_key_and_type(value: object, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        restored(saved(value))


class Subclass(torch.Tensor):
    """A tensor of another class, as quantisation and other libraries make them."""


def with_attribute() -> torch.Tensor:
    tensor = torch.ones(1)
    tensor.note = "x"  # type: ignore[attr-defined]
    return tensor


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.ones(1).as_subclass(Subclass), "a tensor subclass"),
        (nn.Buffer(torch.ones(1)), "a tensor subclass"),
        (with_attribute(), "or a tensor with attributes"),
        (nn.parameter.UninitializedParameter(), "a parameter without numbers"),
        (nn.parameter.UninitializedBuffer(), "a buffer without numbers"),
    ],
    ids=["subclass", "buffer", "attribute", "lazy parameter", "lazy buffer"],
)
def test_a_tensor_of_another_class_is_named_by_its_key(tensor: torch.Tensor, words: str) -> None:
    with pytest.raises(CheckpointError, match="slope is a ") as raised:
        restored(saved({**STATE, "slope": tensor}))
    assert words in str(raised.value)


def test_a_dictionary_that_holds_itself_is_no_endless_loop() -> None:
    itself: dict[str, Any] = {}
    itself["itself"] = itself
    with pytest.raises(CheckpointError, match="not tensors: itself"):
        restored(saved(itself))


def test_safetensors_of_the_network_are_read() -> None:
    assert restored(safetensors.torch.save(STATE)).state_dict()["slope"].item() == 5
