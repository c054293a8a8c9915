"""When a network computes in bfloat16."""

from typing import Any

import pytest
import torch

from training.fitting.precision import in_bfloat16
from training.mnist import Config

CPU = torch.device("cpu")


def test_what_was_asked_for_is_done_on_every_device() -> None:
    for device in (CPU, torch.device("meta")):
        assert in_bfloat16("on", device)
        assert not in_bfloat16("off", device)


@pytest.mark.parametrize(
    ("known", "fast"),
    [({}, False), ({"avx512_bf16": False}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)],
)
def test_auto_is_on_where_the_processor_has_instructions(
    known: dict[str, Any],
    fast: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert in_bfloat16("auto", CPU) is fast


def test_auto_is_off_on_devices_that_nothing_is_known_of() -> None:
    assert not in_bfloat16("auto", torch.device("meta"))


def test_orders_from_when_it_was_on_or_off_are_still_read() -> None:
    assert [Config.model_validate({"mixed": mixed}).mixed for mixed in (True, False, "auto")] == ["on", "off", "auto"]
