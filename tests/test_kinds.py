"""Kinds of network that people bring: what they return, how they pad, what their constructors leave open."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
import torch
from torch import Tensor, nn

from models.answers import require_served
from models.checkpoints import state_dict
from models.checkpoints.onnx_export import export
from models.coding import Coder, example_samples
from models.eager import built, eager
from models.errors import CheckpointError, InvalidInput
from models.outputs import describe_outputs, in_order
from models.samples import Columns
from models.signature import Category, Output, Padded
from models.signature import Tensor as TensorInput
from models.spec import ModelSpec
from service.inference.backends.onnx import session
from service.inference.rehearsal import rehearse
from tests.signatures import SERIES, TAGGER, Series, Tagger
from training.metrics import all_outputs
from training.rows import Coded

ONE, TWO = torch.ones(2, 3), torch.zeros(2, 5)


@dataclass
class Fields:
    """Outputs of a network."""

    hidden: Tensor
    logits: Tensor


class Named(NamedTuple):
    """Outputs of a network, in another order than the spec names them."""

    hidden: Tensor
    logits: Tensor


@pytest.mark.parametrize(
    "outputs",
    [
        pytest.param(Fields(hidden=TWO, logits=ONE), id="dataclass"),
        pytest.param(Named(hidden=TWO, logits=ONE), id="named tuple"),
        pytest.param({"hidden": TWO, "logits": ONE, "attentions": None}, id="dictionary"),
        pytest.param([ONE, TWO], id="list"),
    ],
)
def test_outputs_with_names_are_taken_by_them(outputs: Any) -> None:
    logits, hidden = in_order(outputs, ["logits", "hidden"])
    assert logits is ONE
    assert hidden is TWO


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        pytest.param(
            [{"boxes": ONE}, {"boxes": TWO}], "returns a dict for boxes, .*padded to a fixed count", id="list"
        ),
        pytest.param({"boxes": [ONE, TWO]}, "returns a list for boxes", id="ragged"),
        pytest.param({"boxes": None}, "returns NoneType for boxes, not a tensor", id="none"),
    ],
)
def test_outputs_that_are_no_tensors_are_named(outputs: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        in_order(outputs, ["boxes"])


class Labels(nn.Module):
    """The number of the largest class, int64 (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 4)

    def forward(self, samples: Tensor) -> Tensor:
        label: Tensor = self.out(samples).argmax(dim=1)
        return label


def labels(network: Callable[..., nn.Module] = Labels) -> ModelSpec:
    return ModelSpec(
        summary="labels",
        network=network,
        inputs={"samples": TensorInput((3,), low=-1, high=1)},
        outputs={"label": Output((), np.int64)},
        example=[{"samples": [0.1, 0.2, 0.3]}, {"samples": [0.3, 0.2, 0.1]}],
    )


def test_whole_numbers_of_an_export_are_sent_as_json() -> None:
    spec = labels()
    exported = export(spec, built(spec, {}).eval())
    found = session(exported, spec, 1)(example_samples(spec))
    assert type(found.arrays["label"][0]) is np.int64
    orjson.dumps(describe_outputs(found), option=orjson.OPT_SERIALIZE_NUMPY)
    rehearse("labels", spec, session(exported, spec, 1), coder=Coder(spec, {}))


class Lazy(nn.Module):
    """A network whose sizes follow from its first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(4))

    def forward(self, samples: Tensor) -> Tensor:
        label: Tensor = self.layers(samples).argmax(dim=1)
        return label


def test_a_network_with_lazy_modules_is_built_saved_loaded_and_can_be_trained() -> None:
    spec = labels(Lazy)
    network = built(spec, {})
    assert isinstance(network, Lazy)
    assert network.training
    network.layers(torch.rand(2, 3)).sum().backward()
    content = state_dict.to_bytes(network.state_dict())
    again, notes = state_dict.restore(spec, {}, content, "lazy.pt")
    assert notes == []
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in network.state_dict().items())


class Reader(nn.Module):
    """Self-attention over a series: float32 (N, L, 2), mask bool (N, L) -> float32 (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 1)

    def forward(self, series: Tensor, mask: Tensor) -> Tensor:
        states = self.encoder(self.embed(series), src_key_padding_mask=~mask)
        states, _ = self.attention(query=states, key=states, value=states, key_padding_mask=~mask)
        weights = mask[:, :, None].to(states.dtype)
        outputs: Tensor = self.out((states * weights).sum(dim=1) / weights.sum(dim=1))
        return outputs


READER = replace(SERIES, network=Reader, padding={"series": Padded(mask="mask")})


def test_attention_over_any_length_is_exported() -> None:
    torch.manual_seed(0)
    network = Reader().eval()
    exported = export(READER, network)
    assert exported.refusal == ""
    rehearse("reader", READER, session(exported, READER, 1), coder=Coder(READER, {}))
    assert not network.attention._forward_pre_hooks


class Blind(Series):
    """Answers at the last step of the batch, which is padding for most samples."""

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        states, _ = self.gru(series)
        assert len(states) == len(lengths)
        outputs: Tensor = self.out(states[:, -1])
        return outputs


def test_a_network_that_reads_the_padding_does_not_go_live() -> None:
    run = eager(Blind().eval(), replace(SERIES, network=Blind))
    with pytest.raises(CheckpointError, match="answers a sample differently if longer ones are computed with it"):
        rehearse("series", SERIES, run, coder=Coder(SERIES, {}))
    rehearse("series", SERIES, eager(Series().eval(), SERIES), coder=Coder(SERIES, {}))


class Graph(nn.Module):
    """Means over neighbours: nodes float32 (N, L, 2), edges float32 (N, L, L), mask bool (N, L) -> float32 (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(2, 1)

    def forward(self, nodes: Tensor, edges: Tensor, mask: Tensor) -> Tensor:
        mixed = (edges @ nodes).tanh() * mask[:, :, None]
        outputs: Tensor = self.out(mixed.sum(dim=1))[:, 0]
        return outputs


def square(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    count = len(sample["nodes"])
    if sample["edges"].shape != (count, count):
        raise InvalidInput("Wrong edges", f"edges: send {count} rows of {count} numbers")
    return sample


GRAPH = ModelSpec(
    summary="graphs",
    network=Graph,
    inputs={
        "nodes": TensorInput((None, 2), low=-1, high=1),
        "edges": TensorInput((None, None), low=0, high=1),
    },
    encode=square,
    padding={"nodes": Padded(mask="mask"), "edges": Padded(axes=(0, 1))},
    outputs={"value": Output()},
    example=[{"nodes": [[0, 1], [1, 0]], "edges": [[0, 1], [1, 0]]}] * 2,
)


def test_arrays_that_must_be_as_long_as_each_other_are_tried_with_several_lengths() -> None:
    exported = export(GRAPH, Graph().eval())
    assert exported.refusal == ""
    assert len({case.samples.arrays["nodes"].shape[1] for case in exported.cases}) > 2
    run, coder = session(exported, GRAPH, 1), Coder(GRAPH, {})
    rehearse("graph", GRAPH, run, coder=coder)
    require_served(GRAPH, Graph().eval())


def test_the_mask_of_an_export_has_any_length_though_all_that_is_compared_has_one() -> None:
    def only_two(sample: Mapping[str, Any]) -> Mapping[str, Any]:
        if not set(map(len, sample.values())) <= allowed:
            raise InvalidInput("Wrong edges", "edges: send other ones")
        return sample

    allowed = {2}
    spec = replace(GRAPH, encode=only_two)
    network = Graph().eval()
    exported = export(spec, network)
    allowed.add(5)
    samples = Coder(spec, {})({"nodes": np.ones((5, 2)), "edges": np.ones((5, 5))})
    batch = Columns.of([samples])
    assert session(exported, spec, 1)(batch).arrays["value"] == pytest.approx(
        eager(network, spec)(batch).arrays["value"]
    )


def test_a_category_may_be_a_boolean() -> None:
    garage = Category((False, True))
    assert garage.array(garage.code(True)) == 1
    assert garage.code(np.bool_(False)) is False
    assert garage.of_text("True") is True
    assert garage.of_text("perhaps") == "perhaps"
    for other in (1, "true"):
        with pytest.raises(InvalidInput, match="is none of False, True"):
            garage.code(other)


@pytest.mark.parametrize(
    ("padding", "shape", "said"),
    [
        pytest.param({}, (None,), r"define `padding=\{'nodes': Padded\(\)\}`, or leave out `like`", id="no padding"),
        pytest.param({"nodes": Padded()}, (None, None), r"name all of them in `Padded\(axes=...\)`", id="axes"),
    ],
)
def test_an_output_like_an_array_has_its_padded_axes(padding: Any, shape: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(GRAPH, padding=padding, outputs={"value": Output(shape, like="nodes")})


def test_outputs_of_batches_of_other_lengths_are_filled_up_with_zeros() -> None:
    coder = Coder(TAGGER, {})
    lengths = [3] * 100 + [5, 2]
    samples = Coded(Columns.of([coder({"steps": np.ones(length)}) for length in lengths]), TAGGER.padding)
    network = Tagger()
    (tags,) = all_outputs(network, samples, ["tags"])
    assert tags.shape == (102, 5)
    assert not tags[0, 3:].any()
    alone = network(torch.ones(1, 5))[0]
    assert torch.allclose(tags[100], alone)
