"""Schemas of numeric forms in GET /models."""

from typing import Literal

from pydantic import BaseModel, Field

from service.inference.backends.forms import Switched


class FormStep(BaseModel):
    """The form of batches with at least `samples` samples, up to the next step."""

    samples: int
    form: Literal["fp32", "bf16", "int8"]


class FormVerdict(BaseModel):
    """Changes that a numeric form makes on the validation split, compared with float32."""

    form: Literal["bf16", "int8"]
    refusal: str | None = Field(description="why the form is not used in this process; null: it is")
    runtime: str = Field(description="the library that the form was judged with")
    dataset: str
    rows: int = Field(description="examples of the validation split")
    changed: int = Field(description="examples that get another label")
    largest_change: float = Field(description="largest change of a probability, 0 to 1")


class FormInfo(BaseModel):
    """Numeric forms of the loaded version in this process."""

    steps: list[FormStep]
    verdicts: list[FormVerdict] = Field(description="empty: the forms of this version were not judged")


def form_info(network: Switched | None) -> FormInfo | None:
    """Describe the forms of a network; None if its backend has none."""
    if network is None:
        return None
    forms = network.forms
    return FormInfo(
        steps=[FormStep(samples=samples, form=form) for samples, form in forms.steps],
        verdicts=[
            FormVerdict(
                form=verdict.form,
                refusal=forms.refusals.get(verdict.form),
                runtime=verdict.runtime,
                dataset=verdict.dataset,
                rows=verdict.rows,
                changed=verdict.changed,
                largest_change=verdict.largest_change,
            )
            for verdict in forms.verdicts
        ],
    )
