"""From the tensors of an infer request to the samples of a model with named inputs: one mapping of values a sample."""

from collections.abc import Mapping
from typing import Any

from models.errors import InvalidInput
from models.signature import Category, Input, Number, Picture, is_required
from models.spec import Array
from service.api.openinference.codec import Tensor
from service.api.openinference.tensors import BYTES


def rows(tensors: Mapping[str, Tensor], inputs: Mapping[str, Input]) -> list[dict[str, Any]]:
    """Return the values of each sample by name, not checked yet. Raises InvalidInput."""
    counts = {name: len(tensor.data) for name, tensor in tensors.items()}
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InvalidInput("Unequal counts", f"the first dimension of each input is the samples; here: {found}")
    if 0 in counts.values():
        raise InvalidInput("Wrong shape", "the inputs have no samples; send at least one")
    columns = [_values(tensor, name, inputs[name]) for name, tensor in tensors.items()]
    return [dict(zip(tensors, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(tensor: Tensor, name: str, kind: Input) -> list[Any]:
    """Return the value of each sample: None, NaN and, as bytes, an empty element stand for the default."""
    data = tensor.data
    if tensor.type.datatype == BYTES:
        return [_element(item, tensor, kind, f"sample {row}: {name}") for row, item in enumerate(data.tolist())]
    if isinstance(kind, Number):
        # The shortest decimals: float32 0.1 is 0.1, not 0.10000000149, which a bound of 0.1 would forbid.
        return [float(str(number)) for number in data]
    return data.tolist() if isinstance(kind, Category) else _parts(data)


def _parts(data: Array) -> list[Array]:
    return [data[row, ...] for row in range(len(data))]


def _element(item: bytes, tensor: Tensor, kind: Input, where: str) -> Any:
    """Return the value of one element of BYTES: the bytes of a picture, in JSON base64 of them; else a text."""
    if not item and not is_required(kind):
        return None
    if isinstance(kind, Picture) and tensor.binary:
        return item
    try:
        text = item.decode()
    except UnicodeDecodeError as err:
        raise InvalidInput("Wrong value", f"{where}: the bytes are not a text in UTF-8") from err
    return kind.of_text(text) if isinstance(kind, Category) else text
