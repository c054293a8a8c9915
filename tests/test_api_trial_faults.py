"""Candidates that are slow, hang, fail now and then or answer in another shape: no caller of a shadow notices."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.outputs import describe_values
from models.spec import Array
from service.delivery.count_rows import Place
from service.delivery.shadow import Copied, Shadow
from service.delivery.shadow_lane import Lane
from service.delivery.trial_counts import TrialCounts
from service.delivery.trial_rule import step, verdicts
from service.delivery.trial_tally import Tallies
from service.delivery.trials import DEFAULT_CONDITIONS, Trial
from service.inference.engine import Engine, Loaded
from service.store.database import Store
from tests.fakes import LINE
from tests.open_trials import opened, stage, trial_of
from tests.trial_traffic import SPECS, Traffic, add, is_chosen, served
from tests.waiting import until

REQUESTS = 12


class Odd(nn.Module):
    """x + weight, (N, 1) -> (N, 1). As a candidate, with a weight of at least 1, it does what a test says."""

    does: Callable[[Tensor, int], Tensor] | None = None
    calls = 0

    def __init__(self, weight: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([float(weight)]))

    def forward(self, x: Tensor) -> Tensor:
        answers = x + self.weight
        if Odd.does is None or self.weight < 1:
            return answers
        Odd.calls += 1
        return Odd.does(answers, Odd.calls)


def every_third(answers: Tensor, call: int) -> Tensor:
    if call % 3 == 0:
        raise ArithmeticError("every third batch")
    return answers


def not_a_number(answers: Tensor, call: int) -> Tensor:
    return answers * float("nan") if call % 3 == 0 else answers


def out_of_memory(_: Tensor, __: int) -> Tensor:
    raise MemoryError


def wide(answers: Tensor, _: int) -> Tensor:
    return torch.cat([answers, answers], dim=1)


def one_row_less(answers: Tensor, _: int) -> Tensor:
    return answers[1:]


def slow(answers: Tensor, _: int) -> Tensor:
    time.sleep(0.1)
    return answers


def large(answers: Tensor, _: int) -> Tensor:
    return answers + torch.zeros(20_000_000).sum()


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    specs = {**SPECS, "odd": replace(LINE, network=Odd)}
    with served(tmp_path_factory.mktemp("faults") / "store", specs, request_timeout_s=2) as found:
        add(found.store, "odd", Odd(), {}, live=True)
        until(lambda: found.ask(1.0, "odd").status_code == 200)
        yield found


@pytest.fixture(autouse=True)
def well_again() -> Iterator[None]:
    yield
    Odd.does, Odd.calls = None, 0


def opened_in_shadow(traffic: Traffic, weight: float) -> Trial:
    candidate = add(traffic.store, "odd", Odd(weight), {}, live=False)
    return traffic.open(trial_of([stage(shadow=1.0)], version=candidate, model="odd"))


def ask_all(traffic: Traffic) -> None:
    """Every caller has the live version's answer."""
    for x in range(REQUESTS):
        answer = traffic.ask(float(x), "odd")
        assert (answer.status_code, answer.json()["version"]) == (200, 1)
        assert answer.json()["predictions"][0]["value"] == float(x)


def ask_until(traffic: Traffic, condition: Callable[[], bool]) -> None:
    def asked() -> bool:
        ask_all(traffic)
        return condition()

    until(asked)


def faults(traffic: Traffic, trial: Trial) -> list[str]:
    return list(Tallies(traffic.store).of(trial).faults)


@pytest.mark.parametrize(
    ("does", "fault"),
    [(not_a_number, "not finite: version"), (out_of_memory, "memory: version")],
)
def test_a_shadow_with_a_hard_fault_says_so(traffic: Traffic, does: Any, fault: str) -> None:
    trial = opened_in_shadow(traffic, 1.0)
    Odd.does = does
    ask_until(traffic, lambda: bool(faults(traffic, trial)))
    assert faults(traffic, trial)[0].startswith(fault)
    tally = Tallies(traffic.store).of(trial)
    assert step(trial, tally, verdicts(trial, tally), time.time()).action == "roll_back"
    traffic.move(trial, state="rolled_back")


@pytest.mark.parametrize("does", [every_third, one_row_less])
def test_errors_of_a_shadow_are_counted_and_reach_no_caller(traffic: Traffic, does: Any) -> None:
    trial = opened_in_shadow(traffic, 1.0)
    Odd.does = does
    ask_until(traffic, lambda: traffic.counted(trial, "shadow").errors >= 3)
    traffic.move(trial, state="rolled_back")


@pytest.mark.parametrize("does", [wide, slow, large])
def test_every_copy_of_a_shadow_is_computed_or_counted_as_dropped(traffic: Traffic, does: Any) -> None:
    trial = opened_in_shadow(traffic, 1.0)
    Odd.does = does
    ask_all(traffic)

    def counted() -> int:
        found = traffic.counted(trial, "shadow")
        return found.samples + found.errors + found.dropped

    until(lambda: counted() == REQUESTS)
    found = traffic.counted(trial, "shadow")
    assert (found.differed, found.errors) == (found.samples, 0)
    if does is slow:
        assert sum(found.latency[:9]) == 0  # nothing within some milliseconds
    traffic.move(trial, state="aborted")


def test_a_shadow_that_hangs_reaches_no_caller_and_not_the_next_trial(traffic: Traffic) -> None:
    ended = threading.Event()

    def hang(answers: Tensor, _: int) -> Tensor:
        ended.wait(120)
        return answers

    trial = opened_in_shadow(traffic, 1.0)
    Odd.does = hang
    ask_all(traffic)
    until(lambda: Odd.calls)
    ask_all(traffic)
    traffic.move(trial, state="aborted")
    Odd.does = None
    after = opened_in_shadow(traffic, 2.0)
    ask_all(traffic)
    until(lambda: traffic.counted(after, "shadow").samples == REQUESTS)
    traffic.move(after, state="aborted")
    ended.set()


def test_callers_whom_a_hanging_canary_holds_up_are_no_errors_of_live(traffic: Traffic) -> None:
    ended = threading.Event()

    def hang(answers: Tensor, _: int) -> Tensor:
        ended.wait(120)
        return answers

    candidate = add(traffic.store, "odd", Odd(1.0), {}, live=False)
    stages = [stage(share=0.5)]
    trial = traffic.open(trial_of(stages, version=candidate, model="odd", key_header="X-User"))
    chosen, *others = sorted(map(str, range(20)), key=lambda key: not is_chosen(trial.id, key, 0.5))
    held_up = [key for key in others if not is_chosen(trial.id, key, 0.5)]
    Odd.does = hang
    with ThreadPoolExecutor() as pool:
        first = pool.submit(traffic.ask, 1.0, "odd", "", **{"X-User": chosen})
        until(lambda: Odd.calls)
        answers = list(pool.map(lambda key: traffic.ask(1.0, "odd", "", **{"X-User": key}), held_up[:3]))
    assert [answer.status_code for answer in (first.result(), *answers)] == [504] * 4
    ended.set()
    until(lambda: traffic.counted(trial, "candidate").errors == 1)
    assert traffic.counted(trial, "live").requests == 0
    assert [arm for arm, _ in traffic.keys(trial)] == ["candidate"]
    traffic.move(trial, state="aborted")


def copied(shadow: Shadow, number: int) -> Copied:
    values = np.zeros((1, 1), np.float32)
    place = number.to_bytes(8, "big")
    return Copied(shadow, 1, 8, values, values, [0], f"p{number}", place, may_be_kept=True, decoded_for=None)


def test_requests_that_a_hanging_shadow_does_not_answer_are_errors_that_roll_it_back(store: Store) -> None:
    trial, counts = (
        opened(store, trial_of([stage(shadow=1.0)], version=2, conditions=DEFAULT_CONDITIONS)),
        TrialCounts(store),
    )

    def compute_aside(*_: object) -> Array:
        shadow.overdue(copies)  # meanwhile
        return np.zeros((len(copies), 1), np.float32)

    spec = SimpleNamespace(encode=None, describe=None, outputs={}, prediction=None)
    candidate = cast("Loaded", SimpleNamespace(spec=spec, describe=describe_values))
    engine = cast("Engine", SimpleNamespace(compute_aside=compute_aside, loaded=lambda _: None))
    shadow = Shadow(trial, candidate, engine, counts, Lane(lambda: False), lambda _kind, _detail: None)
    copies = [copied(shadow, number * 2) for number in range(12)]
    shadow.compute(copies, cast("Any", None))
    tally = counts.tally(Place(trial.id, 0, "shadow"))
    assert (tally.requests, tally.errors, tally.samples) == (12, 12, 0)  # what it answered later does not count
    counts.write()
    found = Tallies(store).of(trial)
    due = step(trial, found, verdicts(trial, found), time.time())
    assert (due.action, due.reason[:7]) == ("roll_back", "errors:")
