"""GET /events: the feed of all changes as server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from models.errors import shown
from service.api.event_stream import EVENTS, STILL_HERE, EventStream, line_of, position_of
from service.api.jobs import LastEvent
from service.api.written import WITHOUT_NUL
from service.errors import Invalid, StoreUnavailable
from service.jobs.feed import Feed
from service.store.feed import Changes, Entry
from service.store.feed_kinds import GROUPS, KINDS
from service.web.auth import Access

ACCESS: Mapping[str, Access] = {"GET /events": Access("predict", 422, 429, 503)}
AGAIN_S = 1.0  # after the database was away

ModelFilter = Annotated[Annotated[str, WITHOUT_NUL] | None, Query(description="changes of this model only")]
KindFilter = Annotated[
    list[str] | None,
    Query(
        max_length=50,
        description="changes of this kind only: `job.succeeded`; `job.*`, or `job`: all of jobs. May be repeated",
    ),
]
Follow = Annotated[bool, Query(description="false: the stream ends after the changes that there are")]
_DESCRIPTION = f"""Changes from now on, or after `Last-Event-ID` (0: all), without end. With `follow=false` those that
there are, all or after `Last-Event-ID`.

Each has its kind, and its data: `model`, `at` (seconds since 1970), and the fields of its kind. Kinds:
{", ".join(f"`{kind}`" for kind in KINDS)}.

The stream begins with an `id` alone, the position after which it goes on, so that nothing is missed if it breaks before
the first change. A webhook (TORCHLOOP_WEBHOOKS) gets the same changes."""


def router(changes: Changes, feed: Feed[Entry]) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["events"])

    @routes.get(
        "/events",
        summary="Feed of all changes (server-sent events)",
        description=_DESCRIPTION,
        response_class=StreamingResponse,
        responses={200: {"content": {EVENTS: {}}}},
    )
    async def events(
        model: ModelFilter = None, kind: KindFilter = None, follow: Follow = True, last_event_id: LastEvent = None
    ) -> Response:
        """See _DESCRIPTION."""
        wanted = _filter(model, None if kind is None else _kinds(kind))
        if not follow:
            last = await asyncio.to_thread(changes.last_event)
            lines = _past(changes, int(last_event_id or 0), last, wanted)
            return StreamingResponse(lines, media_type=EVENTS, headers={"Cache-Control": "no-store"})
        after = int(last_event_id) if last_event_id else await asyncio.to_thread(changes.last_event)
        return EventStream(feed, "", after, _told, wanted, begins=True)

    return routes


async def _past(changes: Changes, after: int, last: int, wanted: Callable[[Entry], bool]) -> AsyncIterator[bytes]:
    """Yield the entries after one until the last one, and the position after them; wait for a database that is away."""
    while after < last:
        try:
            page = await asyncio.to_thread(changes.events, "", after)
        except StoreUnavailable:  # the store logs it
            yield STILL_HERE
            await asyncio.sleep(AGAIN_S)
            continue
        entries = [entry for entry in page if entry.id <= last]
        for entry in filter(wanted, entries):
            yield line_of(entry, _told)
        after = entries[-1].id if entries else last
    yield position_of(after)


def _kinds(words: Collection[str]) -> Collection[str]:
    """Return the kinds, and groups of kinds, that a filter names. Raises Invalid."""
    chosen = {word.removesuffix(".*") if word.removesuffix(".*") in GROUPS else word for word in words}
    if unknown := sorted(chosen - KINDS.keys() - GROUPS):
        raise Invalid(f"kind {shown(unknown[0])!r} is none of the feed: {', '.join(KINDS)}; job.* means all of jobs")
    return chosen


def _filter(model: str | None, kinds: Collection[str] | None) -> Callable[[Entry], bool]:
    def wanted(entry: Entry) -> bool:
        is_one = kinds is None or entry.kind in kinds or entry.kind.partition(".")[0] in kinds
        return is_one and model in {None, entry.model}

    return wanted


def _told(entry: Entry) -> Mapping[str, Any]:
    return {"model": entry.model, "at": entry.at, **entry.data}
