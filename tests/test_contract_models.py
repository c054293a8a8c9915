"""Contract of every model; a new model file is covered without a new test."""

import contextlib
import inspect
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import orjson
import pytest
import torch

from models.artifacts import Artifacts
from models.catalog import specs
from models.checkpoints import state_dict
from models.coding import Coder, example_samples
from models.contract import Check
from models.eager import eager
from models.errors import InvalidInput
from models.outputs import description, output_fault, postprocessing
from models.samples import Columns, all_finite, joined
from models.signature import random_value
from models.spec import ModelSpec
from service.api.openinference import signature
from service.api.openinference.codec import parse
from service.api.openinference.tensors import to_bytes
from service.api.signatures import body_schema, example_body, prediction_schema
from service.check import CHECKS
from service.inference.arrays import from_array, from_json, inputs_in
from tests.signatures import ARTIFACTS, SIGNATURES

CASES = [(name, check) for name in specs() for check in CHECKS]
SPECS = [*specs().items(), *((f"{name}_signature", spec) for name, spec in SIGNATURES.items())]
ONE_TENSOR = [(name, spec) for name, spec in SPECS if spec.entry]
NAMED = [(name, spec) for name, spec in SPECS if spec.inputs]
each_model = pytest.mark.parametrize(("name", "spec"), SPECS, ids=[name for name, _ in SPECS])
each_one_tensor_model = pytest.mark.parametrize(("name", "spec"), ONE_TENSOR, ids=[name for name, _ in ONE_TENSOR])
each_named_model = pytest.mark.parametrize(("name", "spec"), NAMED, ids=[name for name, _ in NAMED])


@pytest.mark.parametrize(
    ("name", "check"), CASES, ids=[f"{name}-{check.promise.replace(' ', '_')}" for name, check in CASES]
)
def test_every_model_keeps_the_contract(name: str, check: Check[ModelSpec], tmp_path: Path) -> None:
    check.run(name, specs()[name], tmp_path)


def artifacts_of(name: str) -> Artifacts:
    return ARTIFACTS.get(name.removesuffix("_signature"), {})


def answers(spec: ModelSpec, network: torch.nn.Module, samples: Any, artifacts: Artifacts) -> Any:
    return postprocessing(spec, artifacts)(eager(network.eval(), spec)(samples))


def example(name: str, spec: ModelSpec) -> Any:
    return example_samples(spec, Coder(spec, artifacts_of(name)) if spec.inputs else None)


def rows_of(values: Any) -> list[list[Any]]:
    """Return the arrays of each sample."""
    if isinstance(values, Columns):
        return [list(values.sample(row).values()) for row in range(len(values))]
    return [[row] for row in values]


def assert_same(values: Any, wanted: Any, atol: float) -> None:
    found, other = rows_of(values), rows_of(wanted)
    assert len(found) == len(other)
    for row, wanted_row in zip(found, other, strict=True):
        for array, wanted_array in zip(row, wanted_row, strict=True):
            np.testing.assert_allclose(array, wanted_array, atol=atol, strict=True)


@each_one_tensor_model
def test_the_example_is_a_valid_body_that_decodes_to_itself(name: str, spec: ModelSpec) -> None:
    jsonschema.validate(example_body(spec), body_schema(spec))
    entries = from_json(orjson.dumps(example_body(spec)), spec.tensor)
    assert not entries.errors
    np.testing.assert_array_equal(entries.good, spec.example)
    assert entries.good.dtype == spec.tensor.dtype == spec.example.dtype


@each_named_model
def test_the_example_of_named_inputs_is_a_valid_body_that_decodes_to_itself(name: str, spec: ModelSpec) -> None:
    jsonschema.validate(example_body(spec), body_schema(spec))
    coder = Coder(spec, artifacts_of(name))
    decoded = Columns.of([coder(sample) for sample in inputs_in(orjson.dumps(example_body(spec)))])
    assert_same(decoded, example(name, spec), 0)


@each_model
def test_predictions_have_the_declared_form(name: str, spec: ModelSpec) -> None:
    samples = example(name, spec)
    values = answers(spec, spec.network(), samples, artifacts_of(name))
    assert output_fault(spec, values, len(samples)) is None
    if not spec.outputs:
        assert values.dtype == np.float32
    assert len(values) == len(samples)
    schema = prediction_schema(spec)
    described = list(description(spec, artifacts_of(name))(values))
    predictions = orjson.loads(orjson.dumps(described, option=orjson.OPT_SERIALIZE_NUMPY))
    assert len(predictions) == len(samples)
    for prediction in predictions:
        jsonschema.validate(prediction, schema)
        assert prediction.keys() == schema["properties"].keys()


@each_model
def test_a_sample_has_the_same_answer_alone_and_in_company(name: str, spec: ModelSpec) -> None:
    network, artifacts = spec.network(), artifacts_of(name)
    company = joined([example(name, spec)] * 5)
    together = answers(spec, network, company, artifacts)
    alone = [answers(spec, network, company[i : i + 1], artifacts) for i in range(len(company))]
    assert_same(together, joined(alone), 1e-5)


@each_named_model
def test_random_samples_have_finite_answers_that_are_the_same_alone_and_in_company(name: str, spec: ModelSpec) -> None:
    """Bounds, defaults and several lengths, so that padding shows."""
    rng = np.random.default_rng(0)
    network, artifacts = spec.network(), artifacts_of(name)
    coder = Coder(spec, artifacts)
    rows = [coder(sample) for sample in spec.example]
    for _ in range(40):
        sample = {key: random_value(kind, rng) for key, kind in spec.inputs.items()}
        with contextlib.suppress(InvalidInput):  # of the model's own encode
            rows.append(coder(sample))
    together = answers(spec, network, Columns.of(rows), artifacts)
    alone = [answers(spec, network, Columns.of([row]), artifacts) for row in rows]
    assert all_finite(together)
    assert output_fault(spec, together, len(rows)) is None
    largest = max(float(np.abs(array).max()) for row in rows_of(together) for array in row)
    assert_same(together, joined(alone), 1e-5 * max(1.0, largest))


@each_model
def test_the_state_dict_determines_the_answer(name: str, spec: ModelSpec, tmp_path: Any) -> None:
    network, artifacts = spec.network(), artifacts_of(name)
    path = tmp_path / f"{name}.pt"
    state_dict.save_weights(network.state_dict(), path)
    again, _ = state_dict.load(name, spec, path)
    samples = example(name, spec)
    assert_same(answers(spec, network, samples, artifacts), answers(spec, again, samples, artifacts), 0)


@each_one_tensor_model
def test_the_open_inference_protocol_carries_the_example_in_json_and_in_binary(name: str, spec: ModelSpec) -> None:
    (entry,) = signature.metadata(name, spec, [1], 1)["inputs"]
    described = {**entry, "shape": spec.example.shape}
    data = to_bytes(spec.example)
    as_json = orjson.dumps({"inputs": [{**described, "data": spec.example.tolist()}]})
    as_binary = orjson.dumps({"inputs": [{**described, "parameters": {"binary_data_size": len(data)}}]})
    for body, header in ((as_json, None), (as_binary + data, str(len(as_binary)))):
        found = parse(body, header, signature.accepted(spec), [signature.OUTPUT]).inputs[entry["name"]].data
        entries = from_array(found, spec.tensor)
        assert not entries.errors
        assert entries.good.dtype == spec.example.dtype
        np.testing.assert_array_equal(entries.good, spec.example)


@pytest.mark.parametrize(
    "name", [name for name in specs() if "activation" in inspect.signature(specs()[name].network).parameters]
)
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "softplus"])
def test_every_activation_builds_a_network(name: str, activation: str) -> None:
    spec = specs()[name]
    assert all_finite(answers(spec, spec.network(activation=activation), example(name, spec), {}))


def test_an_unknown_activation_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="relu, sigmoid, tanh, softplus"):
        specs()["mnist"].network(activation="swish")


def test_the_mnist_network_has_28938_parameters() -> None:
    assert sum(parameter.numel() for parameter in specs()["mnist"].network().parameters()) == 28_938
