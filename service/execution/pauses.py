"""Ever longer pauses between tries at the same thing."""

from collections.abc import Collection
from dataclasses import dataclass

_LONGEST_S = 60.0


@dataclass(slots=True)
class _Tries:
    count: int
    not_before_s: float


class Pauses:
    """Pauses of 1, 2, 4 seconds and so on after each try at a name, a minute at most. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._tries: dict[str, _Tries] = {}

    def over(self, name: str, at: float) -> bool:
        """Whether another try may be made."""
        return name not in self._tries or at >= self._tries[name].not_before_s

    def tried(self, name: str, at: float) -> int:
        """Note a try. Returns how many there were before."""
        before = self._tries[name].count if name in self._tries else 0
        self._tries[name] = _Tries(before + 1, at + min(2.0**before, _LONGEST_S))
        return before

    def keep(self, names: Collection[str]) -> None:
        """Forget the tries at all other names."""
        self._tries = {name: tries for name, tries in self._tries.items() if name in names}

    def forget_after(self, name: str, at: float, quiet_s: float) -> None:
        """Forget the tries at a name if its last pause was over that long ago."""
        if name in self._tries and at >= self._tries[name].not_before_s + quiet_s:
            del self._tries[name]
