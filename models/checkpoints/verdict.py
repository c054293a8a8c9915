"""Verdict on a numeric form of an exported network: its differences from float32. Needs no torch."""

from dataclasses import dataclass
from typing import Literal

Form = Literal["bf16", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Changes that a numeric form makes to the answers to a validation split, compared with float32.

    runtime         library that computed it, with its minor version, e.g. "openvino 2026.4"
    dataset         name of the data
    rows            examples of the split
    changed         examples that get another label
    largest_change  largest change of a probability, 0 to 1
    fault           why the form could not be evaluated; then it has no figures
    """

    form: Form
    runtime: str
    dataset: str = ""
    rows: int = 0
    changed: int = 0
    largest_change: float = 0.0
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The gate for numeric forms: the most that one may change.

    labels       examples of the validation split that get another label
    probability  change of a probability, 0 to 1
    """

    labels: int = 0
    probability: float = 0.02

    def refusal(self, verdict: Verdict, runtime: str) -> str:
        """Return why a form is not let in, in a process that has this runtime; empty if it is."""
        if verdict.fault:
            return verdict.fault
        if verdict.runtime != runtime:
            return f"judged with {verdict.runtime}, and {runtime or 'no such runtime'} is installed"
        if verdict.rows == 0:
            return "judged on no example"
        if verdict.changed > self.labels:
            return f"changes {verdict.changed} of {verdict.rows} labels, of which {self.labels} may change"
        if not verdict.largest_change <= self.probability:
            return f"changes a probability by {verdict.largest_change:.3g}, more than {self.probability:g}"
        return ""
