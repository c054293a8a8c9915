"""State_dicts that differ from the network's in what other savers add or leave out."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

from models.checkpoints.matching import match
from models.checkpoints.state_dict import adopt
from models.errors import CheckpointError

State = dict[str, Tensor]


class Tied(nn.Module):
    """A language model's ends: one weight for both, batch normalisation, and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.out = nn.Linear(3, 5, bias=False)
        self.out.weight = self.embedding.weight
        self.register_buffer("places", torch.arange(4), persistent=False)


def trained(network: nn.Module) -> State:
    """A state_dict whose numbers are not those of a new network."""
    return {key: tensor + 1 for key, tensor in network.state_dict().items()}


def without(state: State, *keys: str) -> State:
    return {key: tensor for key, tensor in state.items() if key not in keys}


def test_a_tied_weight_may_be_saved_once() -> None:
    network, state = Tied(), trained(Tied())
    assert adopt(network, without(state, "out.weight")) == ["out.weight is tied to embedding.weight"]
    assert torch.equal(network.out.weight, state["embedding.weight"])
    assert adopt(Tied(), without(state, "embedding.weight")) == ["embedding.weight is tied to out.weight"]


def test_an_outline_without_numbers_matches_as_the_network_does() -> None:
    with torch.device("meta"):
        network = Tied()
    state = {**without(trained(Tied()), "out.weight"), "places": torch.arange(4)}
    _, notes = match(network, state)
    assert notes == ["out.weight is tied to embedding.weight", "places left out: the network computes it"]


def test_a_count_of_batches_may_be_missing() -> None:
    state = without(trained(Tied()), "norm.num_batches_tracked")
    assert adopt(Tied(), state) == ["1 num_batches_tracked missing"]


def test_a_buffer_that_the_network_computes_may_be_saved_if_it_is_the_same() -> None:
    state = trained(Tied())
    assert adopt(Tied(), {**state, "places": torch.arange(4)}) == ["places left out: the network computes it"]
    with pytest.raises(CheckpointError, match="unexpected places"):
        adopt(Tied(), {**state, "places": torch.arange(1, 5)})
    with pytest.raises(CheckpointError, match="unexpected other"):
        adopt(Tied(), {**state, "other": torch.arange(4)})


def test_a_prefix_and_a_missing_tied_weight_together() -> None:
    state = {f"module.{key}": tensor for key, tensor in without(trained(Tied()), "out.weight").items()}
    assert adopt(Tied(), state) == [
        "prefix module. removed from the keys",
        "out.weight is tied to embedding.weight",
    ]


def test_the_averaged_weights_of_torch_optim() -> None:
    network, averaged = nn.Linear(2, 1), AveragedModel(nn.Linear(2, 1))
    notes = adopt(network, averaged.state_dict())
    assert notes == ["n_averaged of AveragedModel left out", "prefix module. removed from the keys"]
    assert torch.equal(network.weight, averaged.module.get_parameter("weight"))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
def test_weights_of_the_older_weight_norm() -> None:
    older = nn.Sequential(nn.utils.weight_norm(nn.Linear(2, 3)), nn.Linear(3, 1))
    network = nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 3)), nn.Linear(3, 1))
    assert adopt(network, older.state_dict()) == ["weight_g and weight_v of weight_norm renamed"]
    samples = torch.rand(4, 2)
    assert torch.allclose(network(samples), older(samples))


def test_a_missing_weight_of_its_own_is_still_named() -> None:
    with pytest.raises(CheckpointError, match=r"missing embedding\.weight; missing out\.weight"):
        adopt(Tied(), without(trained(Tied()), "embedding.weight", "out.weight"))
