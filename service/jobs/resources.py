"""CPUs, GPUs and nodes that a job asks for, and those that a worker has."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from sqlalchemy import ColumnElement, and_, func, true

from service.store.tables import jobs

LEAST = 0.01  # part of a CPU or GPU; Ray refuses less than 0.0001


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one attempt at a job gets on each of its nodes, or what one worker has. A GPU may be shared: 0.5 is half."""

    cpus: float = 1
    gpus: float = 0
    nodes: int = 1

    def asked(self, wish: Mapping[str, Any] | None) -> Self:
        """Return these resources with those that a job asks for in their place."""
        names = {field.name for field in fields(self)}
        given = {name: value for name, value in (wish or {}).items() if name in names and value is not None}
        return type(self)(**{name: given.get(name, getattr(self, name)) for name in names})


def share_of_gpu(gpus: float) -> float:
    """Return the number unchanged. Raises ValueError for a part of a GPU that is too small to be set aside."""
    if 0 < gpus < LEAST:
        raise ValueError(f"the smallest part of a GPU is {LEAST:g}; 0 is none")
    return gpus


def in_words(wish: Mapping[str, Any]) -> str:
    """Return what a job asks for, as in `2 nodes with 4 CPUs and 0.5 GPU each`."""
    named = [(wish.get("cpus"), "CPU"), (wish.get("gpus"), "GPU")]
    has = " and ".join(f"{number:g} {noun}{'s' if number > 1 else ''}" for number, noun in named if number)
    nodes = int(wish.get("nodes") or 1)
    if nodes == 1:
        return f"a worker or node with {has}" if has else "any worker or node"
    return f"{nodes} nodes{f' with {has} each' if has else ''}"


def within(capacity: Resources | None) -> ColumnElement[bool]:
    """Return the condition that a job asks for no more than `capacity`; None: for anything."""
    if capacity is None:
        return true()
    return and_(
        *(
            func.coalesce(jobs.c.resources[field.name].as_float(), 0) <= getattr(capacity, field.name)
            for field in fields(capacity)
        )
    )
