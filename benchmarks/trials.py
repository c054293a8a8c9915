"""The rule of trials, simulated: how often it rolls back a candidate that is as good as live, and how soon a bad one.

A naive test at every look, or a bound on raw rates, rolls back a third or a half of the equal candidates.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import Options
from benchmarks.report import table
from service.delivery.evidence import limit, log_evidence
from service.delivery.trial_rule import share_of_errors
from service.delivery.trials import DEFAULT_STAGES, Stage

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_LOOK = 100  # requests between two looks
_REQUESTS = 20_000
_SHARE = 0.1
_LIVE = 0.005  # of the requests are errors
_RATES = (0.02, 0.05, 0.3)
_AGAIN = 9  # further errors of a key that has had one, on average
_TRIALS = 1000
_LARGE = 2000  # of the tables
_Z = 1.644854  # one-sided p of 0.05


class Seen(NamedTuple):
    """Counts until each look: arrays of (trials, looks)."""

    candidate: Ints  # requests
    candidate_errors: Ints
    live: Ints
    live_errors: Ints


def main(options: Options) -> str:  # noqa: ARG001 - the figures do not depend on the machine
    """Return the tables of the rules, of errors in clusters, of labelled pairs, and of whole trials."""
    rng = np.random.default_rng(0)
    return "\n\n".join([_rules(rng), _clusters(rng), _labelled(rng), _whole(rng)])


def simulate(rng: np.random.Generator, trials: int, requests: int, share: float, live: float, candidate: float) -> Seen:
    """Return the counts of canaries with these shares of errors, one key a request."""
    looks = requests // _LOOK
    asked = rng.binomial(_LOOK, share, (trials, looks))
    wrong, wrong_live = rng.binomial(asked, candidate), rng.binomial(_LOOK - asked, live)
    return Seen(*(part.cumsum(axis=1) for part in (asked, wrong, _LOOK - asked, wrong_live)))


def by_evidence(seen: Seen, share: float, alpha: float) -> NDArray[np.bool_]:
    """Return at which looks the rule of trials rolls back."""
    found = log_evidence(seen.candidate_errors, seen.candidate_errors + seen.live_errors, share)
    rolled: NDArray[np.bool_] = found >= math.log(limit(alpha))
    return rolled


def by_z_test(seen: Seen) -> NDArray[np.bool_]:
    """Return at which looks a one-sided z-test of the two rates has p < 0.05."""
    rate, live = _rate(seen.candidate_errors, seen.candidate), _rate(seen.live_errors, seen.live)
    pooled = _rate(seen.candidate_errors + seen.live_errors, seen.candidate + seen.live)
    error = np.sqrt(pooled * (1 - pooled) * (_rate(np.int64(1), seen.candidate) + _rate(np.int64(1), seen.live)))
    worse: NDArray[np.bool_] = (rate - live) > _Z * error
    return worse & (error > 0)


def by_rates(seen: Seen) -> NDArray[np.bool_]:
    """Return at which looks the candidate's rate of errors is over twice live's, after 20 requests."""
    doubled = _rate(seen.candidate_errors, seen.candidate) > 2 * _rate(seen.live_errors, seen.live)
    worse: NDArray[np.bool_] = doubled & (seen.candidate >= 20)
    return worse


def _rate(part: Ints | np.int64, whole: Ints) -> Floats:
    rate: Floats = part / np.maximum(whole, 1)
    return rate


def share_rolled_back(rolled: NDArray[np.bool_]) -> float:
    """Return the share of the trials that are rolled back at any look."""
    return float(rolled.any(axis=1).mean())


def found_at(rolled: NDArray[np.bool_]) -> float:
    """Return the median number of requests until the look that rolls back; infinite if half of the trials never do."""
    first = np.where(rolled.any(axis=1), (rolled.argmax(axis=1) + 1) * _LOOK, np.inf)
    return float(np.median(first))


def _rules(rng: np.random.Generator) -> str:
    rules: Mapping[str, Callable[[Seen], NDArray[np.bool_]]] = {
        "z-test, p < 0.05": by_z_test,
        "rate > 2 x live, 20 requests": by_rates,
        "evidence, alpha 0.05": lambda seen: by_evidence(seen, _SHARE, 0.05),
        "evidence, alpha 0.01": lambda seen: by_evidence(seen, _SHARE, 0.01),
    }
    equal = simulate(rng, _LARGE, _REQUESTS, _SHARE, _LIVE, _LIVE)
    worse = [simulate(rng, _LARGE // 4, _REQUESTS, _SHARE, _LIVE, rate) for rate in _RATES]
    rows = [
        [name, _percent(share_rolled_back(rule(equal))), *(f"{found_at(rule(seen)):,.0f}" for seen in worse)]
        for name, rule in rules.items()
    ]
    head = ["share 10%, live 0.5% errors", "false", *(f"{rate:.0%} errors at request" for rate in _RATES)]
    return table(head, rows)


def clustered(rng: np.random.Generator, trials: int) -> tuple[Seen, Seen]:
    """Return the counts of canaries of equal versions by keys and by requests, if a key that errs does so again."""
    keys = simulate(rng, trials, _REQUESTS, _SHARE, _LIVE, _LIVE)
    again = [
        np.diff(errors, prepend=0, axis=1) + rng.poisson(_AGAIN * np.diff(errors, prepend=0, axis=1))
        for errors in (keys.candidate_errors, keys.live_errors)
    ]
    by_request = keys._replace(candidate_errors=again[0].cumsum(axis=1), live_errors=again[1].cumsum(axis=1))
    return keys, by_request


def _clusters(rng: np.random.Generator) -> str:
    keys, requests = clustered(rng, _LARGE)
    rows = [
        [name, *(_percent(share_rolled_back(by_evidence(seen, _SHARE, alpha))) for alpha in (0.05, 0.01))]
        for name, seen in (("counting requests", requests), ("counting keys", keys))
    ]
    return table(["errors in clusters of ten of one key", "false at alpha 0.05", "at 0.01"], rows)


def _labelled(rng: np.random.Generator) -> str:
    """3% of the pairs differ; the candidate loses a point: it is right in 1% of all pairs, live in 2%."""
    pairs = np.arange(_LOOK, 20_001, _LOOK)
    differing = rng.binomial(_LOOK, 0.03, (_LARGE // 2, len(pairs)))
    rows = []
    for name, share in (("equally good", 0.5), ("a point worse", 2 / 3)):
        live = rng.binomial(differing, share).cumsum(axis=1)
        rolled = log_evidence(live, differing.cumsum(axis=1), 0.5) >= math.log(limit(0.05))
        early = share_rolled_back(rolled[:, : 5_000 // _LOOK])
        rows.append([name, _percent(early), f"{found_at(rolled):,.0f}"])
    return table(["labelled pairs, 3% differ, alpha 0.05", "rolled back by 5,000", "median at"], rows)


def whole_trials(rng: np.random.Generator, trials: int, stages: tuple[Stage, ...], *, once: bool) -> NDArray[np.bool_]:
    """Return which trials of equal versions are rolled back in any stage at alpha 0.01.

    Some keys err whenever they ask, and come back in every stage: 40 in the first one, and 40 more in each later one.
    A canary's share keeps its members. `once`: a key counts in the first canary stage in which it errs, as the rule has
    it; else in each one.
    """
    logarithms = np.zeros(trials)
    rolled = np.zeros(trials, np.bool_)
    place = rng.random((trials, 40 * len(stages)))  # of each key: a canary answers those below its share
    known = 0
    for number, stage in enumerate(stages):
        present = 40 * (number + 1)
        if stage.shadow:  # a key errs with both versions, or with one by chance
            candidate = rng.binomial(20, 0.5, trials)
            live = 20 - candidate
        else:
            new = place[:, known if once else 0 : present]
            known = present
            candidate = (new < stage.share).sum(axis=1)
            live = (new >= stage.share).sum(axis=1)
        steps = _in_order(rng, candidate, live)
        found = logarithms[:, None] + log_evidence(steps, np.arange(1, steps.shape[1] + 1), share_of_errors(stage))
        rolled |= (found >= math.log(limit(0.01))).any(axis=1)
        logarithms = found[:, -1]
    return rolled


def _in_order(rng: np.random.Generator, candidate: Ints, live: Ints) -> Ints:
    """Return how many of the keys that erred first were the candidate's: (trials, keys), in a random order."""
    total = int((candidate + live)[0])
    order = rng.permuted(np.arange(total) < candidate[:, None], axis=1)
    return order.cumsum(axis=1)


def flaky_shadows(rng: np.random.Generator, trials: int) -> NDArray[np.bool_]:
    """Return which shadows of equal versions are rolled back at alpha 0.01, if both versions err now and then on each
    of 300 keys, and keys with errors of both are left out.
    """
    rate = rng.beta(0.5, 50, (trials, 300))
    live, shadow = np.zeros((2, trials, 300), np.bool_)
    rolled = np.zeros(trials, np.bool_)
    for _ in range(80):
        live |= rng.random(rate.shape) < rate
        shadow |= rng.random(rate.shape) < rate
        found = log_evidence((shadow & ~live).sum(axis=1), (shadow ^ live).sum(axis=1), 0.5)
        rolled |= found >= math.log(limit(0.01))
    return rolled


def _whole(rng: np.random.Generator) -> str:
    growing = (Stage(shadow=1.0, for_s=1, samples=1), *(Stage(share=s, for_s=1, samples=1) for s in (0.05, 0.1, 0.25)))
    rows = [
        [name, _percent(float(whole_trials(rng, _TRIALS, stages, once=once).mean()))]
        for name, stages, once in (
            ("the default stages, each key once", DEFAULT_STAGES, True),
            ("shares 0.05, 0.1, 0.25, each key once", growing, True),
            ("shares 0.05, 0.1, 0.25, again in each stage", growing, False),
        )
    ]
    rows.append(["one shadow, flaky keys", _percent(float(flaky_shadows(rng, _TRIALS).mean()))])
    return table([f"{_TRIALS:,} whole trials of equal versions, alpha 0.01", "rolled back"], rows)


def _percent(share: float) -> str:
    return f"{share:.1%}"
