"""Contract of every model; a new model file is covered without a new test."""

import inspect
from typing import Any

import jsonschema
import numpy as np
import orjson
import pytest
import torch
from pydantic import TypeAdapter

from models.catalog import specs
from models.checkpoints import state_dict
from models.spec import ModelSpec
from service.api.openapi import body_schema, example_body
from service.api.openinference import signature
from service.api.openinference.codec import parse
from service.api.openinference.tensors import to_bytes
from service.inference.arrays import from_array, from_json

SPECS = list(specs().items())
each_model = pytest.mark.parametrize(("name", "spec"), SPECS, ids=[name for name, _ in SPECS])


def answers(spec: ModelSpec, network: torch.nn.Module, entries: Any) -> Any:
    with torch.inference_mode():
        outputs = network.eval()(torch.from_numpy(spec.preprocess(entries).copy())).numpy()
    return spec.postprocess(outputs)


@each_model
def test_the_example_is_a_valid_body_that_decodes_to_itself(name: str, spec: ModelSpec) -> None:
    jsonschema.validate(example_body(spec), body_schema(spec))
    entries = from_json(orjson.dumps(example_body(spec)), spec.entry)
    assert not entries.errors
    np.testing.assert_array_equal(entries.good, spec.example)
    assert entries.good.dtype == spec.entry.dtype == spec.example.dtype


@each_model
def test_predictions_have_the_declared_form(name: str, spec: ModelSpec) -> None:
    values = answers(spec, spec.network(), spec.example)
    assert values.dtype == np.float32
    assert values.shape[0] == len(spec.example)
    schema = TypeAdapter(spec.prediction).json_schema()
    predictions = orjson.loads(orjson.dumps(list(spec.describe(values)), option=orjson.OPT_SERIALIZE_NUMPY))
    assert len(predictions) == len(spec.example)
    for prediction in predictions:
        jsonschema.validate(prediction, schema)
        assert prediction.keys() == schema["properties"].keys()


@each_model
def test_a_sample_has_the_same_answer_alone_and_in_company(name: str, spec: ModelSpec) -> None:
    network = spec.network()
    company = np.concatenate([spec.example] * 5)
    together = answers(spec, network, company)
    alone = np.concatenate([answers(spec, network, company[i : i + 1]) for i in range(len(company))])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@each_model
def test_the_state_dict_determines_the_answer(name: str, spec: ModelSpec, tmp_path: Any) -> None:
    network = spec.network()
    path = tmp_path / f"{name}.pt"
    state_dict.save_weights(network.state_dict(), path)
    again, _ = state_dict.load(name, spec, path)
    np.testing.assert_array_equal(answers(spec, network, spec.example), answers(spec, again, spec.example))


@each_model
def test_the_open_inference_protocol_carries_the_example_in_json_and_in_binary(name: str, spec: ModelSpec) -> None:
    (entry,) = signature.metadata(name, spec, [1], 1)["inputs"]
    described = {**entry, "shape": spec.example.shape}
    data = to_bytes(spec.example)
    as_json = orjson.dumps({"inputs": [{**described, "data": spec.example.tolist()}]})
    as_binary = orjson.dumps({"inputs": [{**described, "parameters": {"binary_data_size": len(data)}}]})
    for body, header in ((as_json, None), (as_binary + data, str(len(as_binary)))):
        found = parse(body, header, signature.accepted(spec), [signature.OUTPUT]).inputs[entry["name"]].data
        entries = from_array(found, spec.entry)
        assert not entries.errors
        assert entries.good.dtype == spec.example.dtype
        np.testing.assert_array_equal(entries.good, spec.example)


@each_model
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "softplus"])
def test_every_activation_builds_a_network(name: str, spec: ModelSpec, activation: str) -> None:
    if "activation" not in _arguments(spec):
        pytest.skip(f"{name} has no choice of activation")
    assert np.isfinite(answers(spec, spec.network(activation=activation), spec.example)).all()


def _arguments(spec: ModelSpec) -> set[str]:
    return set(inspect.signature(spec.network).parameters)


def test_an_unknown_activation_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="relu, sigmoid, tanh, softplus"):
        specs()["mnist"].network(activation="swish")


def test_the_mnist_network_has_28938_parameters() -> None:
    assert sum(parameter.numel() for parameter in specs()["mnist"].network().parameters()) == 28_938
