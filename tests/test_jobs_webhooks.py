"""Webhooks: each change is delivered at least once with the same id, whatever fails. On both databases."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from service.credentials import Webhook
from service.jobs import webhooks
from service.jobs.webhooks import DELAYS_S, Webhooks
from service.settings import SettingsError, from_environment
from service.store.database import Store
from service.store.feed import Changes, append, append_all
from service.store.outbox import Outbox

KEY = b"0123456789abcdef01234567"
NEW_KEY = b"abcdefghijklmnopqrstuvwx"
HOOK = Webhook(url="https://example.com/hook?token=secret", keys=(KEY,))
OTHER = Webhook(url="https://example.org/", keys=(KEY,))
HOUR_S = 3600.0


class Receiver:
    """A receiver that answers with `status`, and notes what it got."""

    def __init__(self, status: int = 204) -> None:
        self.status = status
        self.got: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.got.append(request)
        if not self.status:
            raise httpx.ConnectError("refused")
        return httpx.Response(self.status, headers={"Location": "https://elsewhere.example.com/"})

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.got]


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _configured(store: Store) -> None:
    Outbox(store).configure([HOOK.id], 0.0)


def change(store: Store, kind: str = "job.succeeded", at: float = Clock.now) -> None:
    with store.write() as connection:
        append(connection, kind, "line", at, {"job": "j1"})


def change_and_fail(store: Store) -> None:
    with store.write() as connection:
        append(connection, "job.failed", "line", 0.0, {})
        raise ZeroDivisionError


def send(store: Store, receiver: Callable[[httpx.Request], httpx.Response], clock: Clock, *hooks: Webhook) -> None:
    """Send what is due now, as another process would."""
    transport = httpx.MockTransport(receiver)

    async def run() -> None:
        async with httpx.AsyncClient(transport=transport) as client:
            await Webhooks(store, hooks or (HOOK,), "one", now=clock).send_due(client)

    asyncio.run(run())


def test_a_delivery_is_signed_as_standard_webhooks_says(store: Store, clock: Clock) -> None:
    receiver = Receiver()
    change(store)
    send(store, receiver, clock)
    (request,) = receiver.got
    body: dict[str, Any] = json.loads(request.content)
    assert body == {
        "type": "job.succeeded",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "data": {"model": "line", "job": "j1"},
    }
    number, at = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    signed = hmac.new(KEY, f"{number}.{at}.".encode() + request.content, hashlib.sha256).digest()
    assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"
    assert at == "1800000000"
    send(store, receiver, clock)
    assert len(receiver.got) == 1


@pytest.mark.slow
def test_a_receiver_that_is_away_for_an_hour_gets_each_change_with_the_same_id(store: Store, clock: Clock) -> None:
    receiver = Receiver(0)
    for _ in range(3):
        change(store)
    end = clock.now + HOUR_S
    while clock.now < end:
        send(store, receiver, clock)  # each time by a new sender: the one before was killed
        clock.now += 30
    receiver.got.clear()
    receiver.status = 200
    clock.now += 2 * HOUR_S
    for _ in range(3):
        send(store, receiver, clock)
    assert sorted(receiver.ids) == ["evt_1", "evt_2", "evt_3"]


def test_a_sender_that_is_killed_before_it_noted_the_answer_sends_again(store: Store, clock: Clock) -> None:
    receiver = Receiver()
    change(store)
    confirm, Outbox.confirm = Outbox.confirm, lambda *_: None  # type: ignore[method-assign]
    send(store, receiver, clock)
    Outbox.confirm = confirm  # type: ignore[method-assign]
    send(store, receiver, clock)
    send(store, receiver, clock)
    assert receiver.ids == ["evt_1", "evt_1"]


def test_attempts_end_after_the_last_delay(store: Store, clock: Clock) -> None:
    receiver = Receiver(500)
    change(store)
    for delay_s in (*DELAYS_S, 0):
        send(store, receiver, clock)
        send(store, receiver, clock)  # not due yet
        clock.now += delay_s
    assert len(receiver.got) == len(DELAYS_S) + 1
    clock.now += 1000 * HOUR_S
    send(store, receiver, clock)
    assert len(receiver.got) == len(DELAYS_S) + 1
    assert (DELAYS_S[0], DELAYS_S[-1]) == (5, 36_000)


def test_410_stops_a_receiver_until_it_is_taken_out_of_the_settings(store: Store, clock: Clock) -> None:
    receiver, outbox = Receiver(410), Outbox(store)
    change(store)
    change(store)
    send(store, receiver, clock)
    receiver.status = 200
    outbox.configure([HOOK.id], clock.now)  # a restart
    change(store)
    send(store, receiver, clock)
    assert receiver.ids == ["evt_1"]


def test_a_redirect_is_a_failure_and_is_not_followed(store: Store, clock: Clock) -> None:
    receiver = Receiver(302)
    change(store)
    send(store, receiver, clock)
    assert [request.url.host for request in receiver.got] == ["example.com"]
    clock.now += DELAYS_S[0]
    receiver.status = 200
    send(store, receiver, clock)
    assert receiver.ids == ["evt_1", "evt_1"]


def test_a_failing_receiver_does_not_hold_up_another_one(store: Store, clock: Clock) -> None:
    Outbox(store).configure([HOOK.id, OTHER.id], 0.0)

    def answer(request: httpx.Request) -> httpx.Response:
        got.append(request.url.host)
        return httpx.Response(500 if request.url.host == "example.com" else 200)

    got: list[str] = []
    change(store)
    change(store)
    send(store, answer, clock, HOOK, OTHER)
    assert sorted(got) == ["example.com", "example.org", "example.org"]


def test_a_receiver_that_does_not_answer_delays_its_own_changes_only(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 3600.0)
    Outbox(store).configure([HOOK.id, OTHER.id], 0.0)
    got: asyncio.Queue[str] = asyncio.Queue()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "example.com":
            await asyncio.Event().wait()
        got.put_nowait(request.headers["webhook-id"])
        return httpx.Response(200)

    async def run() -> list[str]:
        transport, found = httpx.MockTransport(answer), []
        async with Webhooks(
            store, [HOOK, OTHER], "one", now=clock, pause=lambda: asyncio.sleep(0), transport=transport
        ):
            for _ in range(3):
                await asyncio.to_thread(change, store)
                found.append(await got.get())
        return found

    assert asyncio.run(asyncio.wait_for(run(), 60)) == ["evt_1", "evt_2", "evt_3"]


def test_an_answer_that_does_not_end_in_time_is_a_failure(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout between two bytes alone would let a receiver that sends its head byte by byte hold up the others."""
    monkeypatch.setattr(webhooks, "TIMEOUT_S", 0.01)

    async def answer(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    change(store)

    async def run() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            await Webhooks(store, [HOOK], "one", now=clock).send_due(client)

    asyncio.run(asyncio.wait_for(run(), 60))
    clock.now += DELAYS_S[0]
    receiver = Receiver()
    send(store, receiver, clock)
    assert receiver.ids == ["evt_1"]


def test_while_a_key_is_replaced_both_sign(store: Store, clock: Clock) -> None:
    receiver = Receiver()
    change(store)
    send(store, receiver, clock, HOOK.model_copy(update={"keys": (NEW_KEY, KEY)}))
    (request,) = receiver.got
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.content
    wanted = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in (NEW_KEY, KEY)]
    assert request.headers["webhook-signature"] == " ".join(f"v1,{one}" for one in wanted)


def test_a_fault_of_the_sender_is_logged_and_it_goes_on(
    store: Store, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver()

    async def run() -> None:
        again = asyncio.Event()

        def answer(request: httpx.Request) -> httpx.Response:
            response = receiver(request)
            if len(receiver.got) == 1:
                raise ZeroDivisionError
            again.set()
            return response

        transport = httpx.MockTransport(answer)
        async with Webhooks(store, [HOOK], "one", now=clock, pause=lambda: asyncio.sleep(0), transport=transport):
            change(store)
            await again.wait()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert "webhook not sent" in caplog.text
    assert receiver.ids[:2] == ["evt_1", "evt_1"]


def test_a_receiver_gets_the_changes_since_it_is_in_the_settings(store: Store, clock: Clock) -> None:
    outbox, receiver = Outbox(store), Receiver()
    outbox.configure([], clock.now)
    change(store)
    outbox.configure([HOOK.id], clock.now)
    change(store)
    send(store, receiver, clock)
    assert receiver.ids == ["evt_2"]


def test_a_change_that_is_rolled_back_is_not_announced(store: Store, clock: Clock) -> None:
    receiver = Receiver()
    with pytest.raises(ZeroDivisionError):
        change_and_fail(store)
    send(store, receiver, clock)
    assert receiver.got == []
    assert Changes(store).last_event() == 0


def test_changes_that_are_added_together_are_delivered_to_each_receiver(store: Store, clock: Clock) -> None:
    Outbox(store).configure([HOOK.id, OTHER.id], 0.0)
    change(store)
    with store.write() as connection:
        append_all(connection, "job.cancelled", clock.now, [("line", {"job": str(number)}) for number in range(3)])
    receiver = Receiver()
    send(store, receiver, clock, HOOK, OTHER)
    assert sorted(receiver.ids) == sorted(["evt_1", "evt_2", "evt_3", "evt_4"] * 2)


def test_one_of_two_processes_sends(store: Store, clock: Clock) -> None:
    receiver = Receiver()

    async def run() -> None:
        looks: list[asyncio.Queue[None]] = [asyncio.Queue(), asyncio.Queue()]
        sent = asyncio.Event()

        def answer(request: httpx.Request) -> httpx.Response:
            sent.set()
            return receiver(request)

        senders = [
            Webhooks(store, [HOOK], name, now=clock, pause=queue.get, transport=httpx.MockTransport(answer))
            for name, queue in zip("ab", looks, strict=True)
        ]
        async with senders[0], senders[1]:
            change(store)
            while not sent.is_set():
                for queue in looks:
                    queue.put_nowait(None)
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert receiver.ids == ["evt_1"]


def test_receivers_and_their_keys_are_read_from_the_settings() -> None:
    one, two = (base64.b64encode(key).decode() for key in (KEY, NEW_KEY))
    text = f"https://example.com/hook?token=secret whsec_{two} whsec_{one}, https://example.org/ whsec_{one}"
    found = from_environment({"TORCHLOOP_WEBHOOKS": text}).webhooks
    assert [(hook.id, hook.keys) for hook in found] == [(HOOK.id, (NEW_KEY, KEY)), (OTHER.id, (KEY,))]


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/",
        "https://example.com/ whsec_",
        "https://example.com/ whsec_c2hvcnQ=",
        f"https://example.com/ whsec_{base64.b64encode(KEY).decode()} whsec_***",
        f"ftp://example.com/ whsec_{base64.b64encode(KEY).decode()}",
    ],
)
def test_other_words_are_refused_without_showing_them(text: str) -> None:
    with pytest.raises(SettingsError, match="openssl rand -base64 32") as refused:
        from_environment({"TORCHLOOP_WEBHOOKS": text})
    assert "example.com/ whsec_c2" not in str(refused.value)


def test_no_text_holds_the_address_or_the_key() -> None:
    assert "secret" not in repr(HOOK)
    assert KEY.decode() not in repr(HOOK)
    assert "secret" not in HOOK.id
