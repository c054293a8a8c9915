"""Load shedding without parsing: a request with the head of one that was refused is refused by the same bytes.

While a queue is full, most requests are refused, and parsing their heads costs more than everything else. All that the
refusal depends on is in the head, except whether the queue is still full. So the server remembers the heads that it
refused, for as long as the Date of its answers stays the same: a request that begins with such a head, and has a body
of the same length, is a whole request that its parser would read in the same way.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

from starlette.responses import Response

from service.web.exchange import Refusal, Reply, reply_of

_HEADS = 256  # that are remembered
_HEAD_BYTES = 4096  # of a head that is remembered
_ANSWERS = 16  # that are remembered
_END = b"\r\n\r\n"


Defaults = Sequence[tuple[bytes, bytes]]


class Known(NamedTuple):
    """A head that was refused: the length of the body after it, the refusal, and its bytes."""

    size: int
    refusal: Refusal
    content: bytes


class Refusals:
    """What one server remembers. `defaults` are the headers of all answers: another list, once the Date has changed."""

    _of_servers: ClassVar[WeakKeyDictionary[Any, "Refusals"]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._defaults: Defaults = ()
        self._answers: dict[Response, bytes] = {}
        self.heads: dict[bytes, Known] = {}

    @classmethod
    def of(cls, server: object) -> "Refusals":
        """Return those of a server: all of its connections share them."""
        found = cls._of_servers.get(server)
        if found is None:
            found = cls._of_servers[server] = cls()
        return found

    def answer(self, response: Response, defaults: Defaults, content: Callable[[Reply], bytes]) -> bytes:
        """Return the bytes of a refusal, which `content` makes."""
        if defaults is not self._defaults or len(self._answers) >= _ANSWERS:
            self._forget(defaults)
        found = self._answers.get(response)
        if found is None:
            found = self._answers[response] = content(reply_of(response))
        return found

    def keep(self, request: bytes, size: int, refusal: Refusal) -> None:
        """Remember the head of a whole request that was refused; its last `size` bytes are its body."""
        end, content = len(request) - size, self._answers.get(refusal.response)
        if content is None or end > _HEAD_BYTES or request.find(_END) + len(_END) != end:  # chunks, or several requests
            return
        if len(self.heads) >= _HEADS:
            self.heads.clear()
        self.heads[request[:end]] = Known(size, refusal, content)

    def find(self, received: bytes, defaults: Defaults) -> Known | None:
        """Return the known properties of a request's head, if the bytes received are the whole of it."""
        if defaults is not self._defaults:
            self._forget(defaults)
            return None
        end = received.find(_END) + len(_END)
        known = self.heads.get(received[:end])
        return known if known is not None and len(received) - end == known.size else None

    def _forget(self, defaults: Defaults) -> None:
        self._defaults = defaults
        self.heads.clear()
        self._answers.clear()
