"""Sender of webhooks: posts each change of the feed to each receiver, at least once, with the same id each time.

Requests follow the Standard Webhooks specification (https://www.standardwebhooks.com): the headers webhook-id,
webhook-timestamp and webhook-signature, an HMAC-SHA256 of id, time and body by each key of the receiver. Of all web
processes on a database one sends at a time. Receivers are independent of each other: a slow one delays its own changes
only. Redirects are not followed. A failed delivery is tried again after 5 seconds to 10 hours.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from service.errors import StoreUnavailable
from service.settings import Webhook
from service.store.database import Store
from service.store.feed import Entry
from service.store.leadership import Leadership
from service.store.outbox import Delivery, Outbox

if TYPE_CHECKING:  # its import takes 45 ms and 5 MB, with the command line that it carries
    import httpx

DELAYS_S = (5, 60, 600, 3_600, 7_200, 18_000, 36_000)  # after each failed attempt; then the delivery is given up
TIMEOUT_S = 10.0  # until the status of the answer is there
_LOOK_S = 1.0
_AT_ONCE = 20  # deliveries to one receiver between two looks
_GONE = 410
log = logging.getLogger(__name__)


async def _pause() -> None:
    await asyncio.sleep(_LOOK_S)


class Webhooks:
    """Sends while it is entered. `now` returns seconds since 1970; `transport` replaces the network in tests."""

    def __init__(
        self,
        store: Store,
        receivers: Sequence[Webhook],
        holder: str,
        *,
        now: Callable[[], float] = time.time,
        pause: Callable[[], Awaitable[None]] = _pause,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        self._outbox = Outbox(store)
        self._leadership = Leadership(store, "webhooks", holder)
        self._receivers = {one.id: one for one in receivers}
        self._now = now
        self._pause = pause
        self._transport = transport
        self._attempt: int | None = None  # fencing token while this process leads
        self._work: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        if self._receivers:
            self._work = [asyncio.create_task(self._lead()), asyncio.create_task(self._send())]

    async def __aexit__(self, *_: object) -> None:
        for work in self._work:
            work.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        if self._attempt is not None:
            with contextlib.suppress(StoreUnavailable):
                await asyncio.to_thread(self._leadership.resign)

    async def _lead(self) -> None:
        """Renew the lease during the requests, which may take longer than it lasts."""
        while True:
            try:
                attempt = await asyncio.to_thread(self._leadership.lead)
                if attempt is not None and attempt != self._attempt:
                    await asyncio.to_thread(self._outbox.configure, list(self._receivers), self._now())
                self._attempt = attempt
            except StoreUnavailable:  # the store logs it
                self._attempt = None
            await self._pause()

    async def _send(self) -> None:
        import httpx  # noqa: PLC0415 - see above

        async with httpx.AsyncClient(timeout=TIMEOUT_S, transport=self._transport) as client:
            await asyncio.gather(*(self._keep_sending(client, one) for one in self._receivers.values()))

    async def _keep_sending(self, client: "httpx.AsyncClient", receiver: Webhook) -> None:
        while True:
            if self._attempt is not None:
                try:
                    await self._send_to(client, receiver)
                except Exception:
                    log.exception("webhook not sent, it is tried again", extra={"webhook": receiver.id})
            await self._pause()

    async def send_due(self, client: "httpx.AsyncClient") -> None:
        """Send the due deliveries once, to all receivers at the same time."""
        await asyncio.gather(*(self._send_to(client, one) for one in self._receivers.values()))

    async def _send_to(self, client: "httpx.AsyncClient", receiver: Webhook) -> None:
        """Send the due deliveries of one receiver, until one delivery fails: the others would, too."""
        with contextlib.suppress(StoreUnavailable):
            due = await asyncio.to_thread(self._outbox.due, receiver.id, self._now(), _AT_ONCE)
            for one in due:
                if not await self._deliver(client, receiver, one):
                    return

    async def _deliver(self, client: "httpx.AsyncClient", receiver: Webhook, one: Delivery) -> bool:
        """Send one delivery, and note the outcome. Returns whether it was taken."""
        import httpx  # noqa: PLC0415 - see above

        body = content(one.entry)
        headers = self._headers(receiver, one, body)
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                client.stream("POST", receiver.url, content=body, headers=headers) as got,
            ):
                status, words = got.status_code, f"status {got.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as err:
            status, words = 0, type(err).__name__
        if 200 <= status < 300:
            await asyncio.to_thread(self._outbox.confirm, one)
            return True
        fields = {"webhook": one.webhook, "entry": one.entry.id, "reason": words}
        if status == _GONE:
            log.warning("webhook stopped", extra=fields)
            await asyncio.to_thread(self._outbox.stop, one.webhook, words, self._now())
        elif one.attempts >= len(DELAYS_S):
            log.error("webhook delivery given up", extra=fields)
            await asyncio.to_thread(self._outbox.confirm, one)
        else:
            log.warning("webhook delivery failed, it is tried again", extra=fields)
            await asyncio.to_thread(self._outbox.postpone, one, self._now() + DELAYS_S[one.attempts])
        return False

    def _headers(self, receiver: Webhook, one: Delivery, body: bytes) -> Mapping[str, str]:
        number, at = f"evt_{one.entry.id}", int(self._now())
        return {
            "Content-Type": "application/json",
            "User-Agent": "torchloop",
            "webhook-id": number,
            "webhook-timestamp": str(at),
            "webhook-signature": " ".join(signature(key, number, at, body) for key in receiver.keys),
        }


def content(entry: Entry) -> bytes:
    """Return the body of a delivery."""
    at = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return orjson.dumps({"type": entry.kind, "timestamp": at, "data": {"model": entry.model, **entry.data}})


def signature(key: bytes, number: str, at: int, body: bytes) -> str:
    """Return one signature of a delivery with that id, sent at `at` (seconds since 1970)."""
    signed = hmac.new(key, f"{number}.{at}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"
