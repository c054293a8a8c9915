"""Contract of every model; a new model file is covered without a new test."""

from pathlib import Path

import pytest

from models.catalog import specs
from models.contract import Check
from models.spec import ModelSpec
from service.check import CHECKS
from tests.signatures import SIGNATURES

SPECS = {**specs(), **{f"{name}_signature": spec for name, spec in SIGNATURES.items()}}
CASES = [(name, check) for name in SPECS for check in CHECKS]


@pytest.mark.parametrize(
    ("name", "check"), CASES, ids=[f"{name}-{check.promise.replace(' ', '_')}" for name, check in CASES]
)
def test_every_model_keeps_the_contract(name: str, check: Check[ModelSpec], tmp_path: Path) -> None:
    check.run(name, SPECS[name], tmp_path)


def test_an_unknown_activation_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="relu, sigmoid, tanh, softplus"):
        specs()["mnist"].network(activation="swish")


def test_the_mnist_network_has_28938_parameters() -> None:
    assert sum(parameter.numel() for parameter in specs()["mnist"].network().parameters()) == 28_938
