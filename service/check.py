"""Contract checks of specs, and the first half of `torchloop check`. The second is `training.check`."""

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import orjson
import torch
from pydantic import TypeAdapter

from models.catalog import discovered
from models.checkpoints import state_dict
from models.contract import Broken, Command, checks, require
from models.spec import Array, ModelSpec
from service.api.openapi import body_schema, example_body
from service.api.openinference import signature
from service.api.openinference.codec import parse
from service.api.openinference.tensors import to_bytes
from service.inference.arrays import from_array, from_json

_COPIES = 5
_TOLERANCE = 1e-5
_ACTIVATIONS = ("relu", "sigmoid", "tanh", "softplus")


def the_example_is_a_valid_body_that_decodes_to_itself(_: str, spec: ModelSpec, __: Path) -> None:
    """`example` fits `entry`, in values and dtype."""
    jsonschema.validate(example_body(spec), body_schema(spec))
    decoded = from_json(orjson.dumps(example_body(spec)), spec.entry)
    require(not decoded.errors, f"the example is refused: {next(iter(decoded.errors.values()), None)}")
    require(np.array_equal(decoded.good, spec.example), "the example changes when it is sent as JSON")


def predictions_have_the_declared_form(_: str, spec: ModelSpec, __: Path) -> None:
    """`postprocess` returns float32 (N, k), and `describe` N of `prediction`."""
    values, samples = _answers(spec, spec.network(), spec.example), len(spec.example)
    require(values.dtype == np.float32, f"postprocess returned {values.dtype}: return float32")
    require(len(values) == samples, f"postprocess returned {len(values)} rows for {samples} samples")
    schema = TypeAdapter(spec.prediction).json_schema()
    predictions = orjson.loads(orjson.dumps(list(spec.describe(values)), option=orjson.OPT_SERIALIZE_NUMPY))
    require(len(predictions) == samples, f"describe returned {len(predictions)} predictions for {samples} samples")
    for prediction in predictions:
        try:
            jsonschema.validate(prediction, schema)
        except jsonschema.ValidationError as err:
            raise Broken(f"a prediction is not a {spec.prediction.__name__}: {err.message[:200]}") from err
        extra = prediction.keys() ^ schema["properties"].keys()
        require(not extra, f"{spec.prediction.__name__} and describe differ in {', '.join(sorted(extra))}")


def a_sample_has_the_same_answer_alone_and_in_company(_: str, spec: ModelSpec, __: Path) -> None:
    """No answer depends on the other samples of its batch."""
    network = spec.network()
    company = np.concatenate([spec.example] * _COPIES)
    together = _answers(spec, network, company)
    alone = np.concatenate([_answers(spec, network, company[i : i + 1]) for i in range(len(company))])
    require(
        together.shape == alone.shape and np.allclose(together, alone, rtol=1e-7, atol=_TOLERANCE, equal_nan=True),
        "an answer changes with the other samples of its batch: compute each row by itself",
    )


def the_state_dict_determines_the_answer(name: str, spec: ModelSpec, folder: Path) -> None:
    """A network that is loaded from the file of another answers the same."""
    network, path = spec.network(), folder / f"{name}.pt"
    state_dict.save_weights(network.state_dict(), path)
    again, _ = state_dict.load(name, spec, path)
    require(
        np.array_equal(_answers(spec, network, spec.example), _answers(spec, again, spec.example), equal_nan=True),
        "a reloaded network gives another answer: register all that it depends on as parameters or buffers",
    )


def the_open_inference_protocol_carries_the_example_in_json_and_in_binary(name: str, spec: ModelSpec, _: Path) -> None:
    """/v2 decodes the example to itself."""
    (entry,) = signature.metadata(name, spec, [1], 1)["inputs"]
    described = {**entry, "shape": spec.example.shape}
    data = to_bytes(spec.example)
    as_json = orjson.dumps({"inputs": [{**described, "data": spec.example.tolist()}]})
    as_binary = orjson.dumps({"inputs": [{**described, "parameters": {"binary_data_size": len(data)}}]})
    for body, header in ((as_json, None), (as_binary + data, str(len(as_binary)))):
        found = parse(body, header, signature.accepted(spec), [signature.OUTPUT]).inputs[entry["name"]].data
        entries = from_array(found, spec.entry)
        same = entries.good.dtype == spec.example.dtype and np.array_equal(entries.good, spec.example)
        require(same and not entries.errors, "the example changes when it is sent to /v2")


def every_activation_builds_a_network(_: str, spec: ModelSpec, __: Path) -> None:
    """A network with the argument `activation` takes each of them."""
    if "activation" in inspect.signature(spec.network).parameters:
        for activation in _ACTIVATIONS:
            answers = _answers(spec, spec.network(activation=activation), spec.example)
            require(bool(np.isfinite(answers).all()), f"with activation={activation} the answers are not finite")


def _answers(spec: ModelSpec, network: Any, entries: Array) -> Array:
    with torch.inference_mode():
        outputs = network.eval()(torch.from_numpy(spec.preprocess(entries).copy())).numpy()
    return spec.postprocess(outputs)


CHECKS = checks(
    the_example_is_a_valid_body_that_decodes_to_itself,
    predictions_have_the_declared_form,
    a_sample_has_the_same_answer_alone_and_in_company,
    the_state_dict_determines_the_answer,
    the_open_inference_protocol_carries_the_example_in_json_and_in_binary,
    every_activation_builds_a_network,
)


def main(words: Sequence[str] | None = None, *, prog: str = "python -m service.check") -> int:
    """Check the specs. Returns the exit status, see Command."""
    return Command("models", discovered, CHECKS, required=True).main(words, prog)


if __name__ == "__main__":
    sys.exit(main())
