"""Tensors of a file and of a network: names, layouts and dtypes, all of them generated."""

import io
import re
from collections.abc import Callable, Mapping

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from models.checkpoints.matching import converted, match
from models.checkpoints.state_dict import adopt, read_state
from models.errors import CheckpointError
from tests.checkpoint_files import LAYOUTS, QUANTISED, as_layout, dtypes, saved

FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
State = dict[str, Tensor]


class Small(nn.Module):
    """Two layers and a batch norm, whose count of batches is an integer buffer."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 3, dtype=dtype), nn.BatchNorm1d(3, dtype=dtype), nn.Linear(3, 1))


def state() -> State:
    torch.manual_seed(1)
    return Small().state_dict()


def written(tensors: Mapping[str, Tensor], form: str) -> State:
    """The tensors after a file in that form."""
    content = safetensors.torch.save(dict(tensors)) if form == "safetensors" else saved(dict(tensors))
    return read_state(content, "file")


@pytest.mark.parametrize("dtype", dtypes(), ids=str)
def test_every_dtype_is_converted_and_noted_or_refused_by_its_name(dtype: torch.dtype) -> None:
    network, key = Small(), "layers.0.weight"
    tensors = {**state(), key: torch.ones(3, 2).to(dtype)}
    if dtype in FLOATS:
        notes = adopt(network, tensors)
        assert torch.equal(network.state_dict()[key], torch.ones(3, 2))
        name = str(dtype).removeprefix("torch.")
        assert notes == ([] if dtype is torch.float32 else [f"{name} cast to float32: 1 tensor"])
        return
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"{key} is {str(dtype)[6:]} instead of float32.* Save "):
        adopt(network, tensors)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in before.items())


@pytest.mark.parametrize("dtype", sorted(FLOATS, key=str), ids=str)
def test_a_network_of_another_precision_takes_float32_and_says_so(dtype: torch.dtype) -> None:
    network = Small(dtype)
    notes = adopt(network, state())
    assert network.state_dict()["layers.0.weight"].dtype is dtype
    assert bool(notes) == (dtype is not torch.float32)


@pytest.mark.parametrize(
    ("count", "kept"),
    [
        (torch.tensor(7), True), (torch.tensor(7, dtype=torch.int32), True), (torch.tensor(7, dtype=torch.uint8), True),
        (torch.tensor(7.0, dtype=torch.float16), True), (torch.tensor(7.0, dtype=torch.bfloat16), True),
        (torch.tensor(7.0), True), (torch.tensor(7.5), False), (torch.tensor(float("inf")), False),
        (torch.tensor(1e30), False), (torch.tensor(True), False), (torch.tensor(7j), False),
    ],
    ids=str,
)  # fmt: skip
def test_an_integer_buffer_keeps_its_dtype_and_takes_whole_numbers_only(count: Tensor, kept: bool) -> None:
    network, key = Small(), "layers.1.num_batches_tracked"
    if kept:
        adopt(network, {**state(), key: count})
        assert network.state_dict()[key].dtype is torch.int64
        assert network.state_dict()[key].item() == 7
    else:
        with pytest.raises(CheckpointError, match=re.escape(key)):
            adopt(network, {**state(), key: count})


@pytest.mark.parametrize(
    ("dtype", "number"),
    [
        (torch.float64, 1e300),
        (torch.float16, float("inf")),
        (torch.bfloat16, float("nan")),
        (torch.float32, -torch.inf),
    ],
)
def test_a_number_that_is_not_finite_after_the_conversion_is_refused(dtype: torch.dtype, number: float) -> None:
    tensors = {**state(), "layers.2.bias": torch.full((1,), number, dtype=dtype)}
    with pytest.raises(CheckpointError, match=r"not finite: layers\.2\.bias"):
        adopt(Small(), tensors)


@pytest.mark.parametrize("layout", ["meta", *LAYOUTS])
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_every_layout_but_the_dense_one_is_refused_by_its_name(layout: str) -> None:
    key = "layers.0.weight"
    with pytest.raises(CheckpointError, match=rf"{layout}.*\((save|load) .*{key}"):
        match(Small(), written({**state(), key: as_layout(state()[key], layout)}, "torch"))


@pytest.mark.parametrize("layout", [*QUANTISED, "per_channel", "nested"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_quantised_and_nested_tensors_are_refused_by_their_key(layout: str) -> None:
    key = "layers.0.weight"
    bad = {**state(), key: as_layout(state()[key], layout)}
    kind = {"nested": "nested", "per_channel": "qint8"}.get(layout, layout)
    with pytest.raises(CheckpointError, match=rf"{kind}.*\(save .*\): {key}"):
        match(Small(), bad)
    with pytest.raises(
        CheckpointError, match=rf"{key} is a {kind if kind == 'nested' else f'quantised tensor .{kind}.'}"
    ):
        written(bad, "torch")


PREFIXES = (
    "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "network.", "net.", "model._orig_mod.",
    "model.module.", "_fsdp_wrapped_module.", "module.model.", "student.backbone.", "layers.",
)  # fmt: skip


@pytest.mark.parametrize("form", ["torch", "safetensors"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_one_prefix_that_all_keys_have_is_removed_and_noted(prefix: str, form: str) -> None:
    network = Small()
    notes = adopt(network, written({prefix + key: tensor for key, tensor in state().items()}, form))
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in state().items())
    assert prefix in notes[0]


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_wrappers_of_single_layers_are_removed_too(wrapper: str) -> None:
    tensors = {key.replace("layers.0", f"layers.0.{wrapper}"): tensor for key, tensor in state().items()}
    network = Small()
    assert adopt(network, tensors) == ["names of wrappers removed from the keys"]
    assert torch.equal(network.state_dict()["layers.0.weight"], tensors[f"layers.0.{wrapper}.weight"])


@pytest.mark.parametrize("prefix", ["module.", "model.", "net.encoder."])
def test_a_prefix_that_leaves_other_keys_over_gives_the_line_that_removes_it(prefix: str) -> None:
    tensors = {**{prefix + key: tensor for key, tensor in state().items()}, "criterion.weight": torch.ones(2)}
    with pytest.raises(CheckpointError, match=r"unexpected criterion\.weight.* save (.*)$") as raised:
        match(Small(), tensors)
    line = str(raised.value).partition(": save ")[2]
    stripped = eval(line, {"state": tensors})  # noqa: S307 - the line that the message gives
    assert stripped.keys() == state().keys()
    adopt(Small(), stripped)


def test_the_same_layers_under_other_names_give_the_line_that_renames_them() -> None:
    theirs = {f"own.{number}": tensor for number, tensor in enumerate(state().values())}
    with pytest.raises(CheckpointError, match=r"missing layers\.0\.weight.*unexpected own\.0.*dict\(zip\(") as raised:
        match(Small(), theirs)
    line = re.search(r"dict\(zip\(.*\)\)", str(raised.value))
    assert line
    adopt(Small(), eval(line[0], {"state": theirs, "network": Small()}))  # noqa: S307


@pytest.mark.parametrize("form", ["torch", "safetensors"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_layers_of_a_sequential_are_matched_by_position_in_any_order(form: str, prefix: str) -> None:
    inner = Small().layers.state_dict()
    inner["0.weight"] = torch.full((3, 2), 5.0)
    network = Small()
    notes = adopt(network, written({prefix + key: tensor for key, tensor in reversed(inner.items())}, form))
    assert "layers.0.weight" in network.state_dict()
    assert torch.equal(network.state_dict()["layers.0.weight"], inner["0.weight"])
    assert notes


@pytest.mark.parametrize("name", ["kernel", "weight_orig", "weight_v"])
def test_parameters_of_other_names_are_not_matched_by_position(name: str) -> None:
    inner = {key.replace("weight", name): tensor for key, tensor in Small().layers.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"unexpected 0\.{name}"):
        match(Small(), inner)


def test_long_lists_of_keys_are_cut() -> None:
    with pytest.raises(CheckpointError, match="and 950 more unexpected") as raised:
        match(Small(), {f"{number}{'x' * 500}": torch.ones(1) for number in range(1000)})
    assert len(str(raised.value)) < 10_000


SHARED = torch.ones(6)
VIEWS: dict[str, Callable[[], State]] = {
    "two views of one storage": lambda: {"layers.0.weight": SHARED.view(3, 2), "layers.0.bias": SHARED[:3]},
    "a transposed view": lambda: {"layers.0.weight": torch.ones(2, 3).T},
    "an expanded tensor": lambda: {"layers.0.weight": torch.ones(1).expand(3, 2)},
    "a part of a large storage": lambda: {"layers.0.bias": torch.ones(1000)[::400][:3]},
    "a parameter": lambda: {"layers.0.bias": nn.Parameter(torch.ones(3))},
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_and_parameters_are_read_as_their_numbers(view: str) -> None:
    network = Small()
    content = saved({**state(), **VIEWS[view]()})
    assert adopt(network, read_state(content, "file")) == []
    for key in VIEWS[view]():
        assert bool((network.state_dict()[key] == 1).all())
    again = io.BytesIO(saved(network.state_dict()))
    assert torch.load(again, weights_only=True).keys() == state().keys()


@pytest.mark.parametrize("tensors", [{}, {"layers.0.weight": torch.tensor(1.0)}, {"": torch.ones(1)}])
def test_empty_states_and_tensors_without_dimensions_list_the_keys(tensors: State) -> None:
    with pytest.raises(CheckpointError, match=r"does not fit the network: missing layers\.0\."):
        match(Small(), written(tensors, "torch"))


def test_conversion_leaves_tensors_of_the_right_dtype_alone() -> None:
    tensors, notes = converted(Small().state_dict(), state())
    assert notes == []
    assert all(tensor.dtype == Small().state_dict()[key].dtype for key, tensor in tensors.items())
