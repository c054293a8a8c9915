"""The row of this service in the table of nodes, and the promotions that other nodes have to follow."""

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple
from uuid import NAMESPACE_OID, getnode, uuid4, uuid5

from service.delivery.followers import ON_DEMAND, Follower, Followers, agreed_stages
from service.delivery.nodes import FORGOTTEN_S, Nodes, Row
from service.errors import StoreUnavailable
from service.store.database import Store

log = logging.getLogger(__name__)
_BEAT_S = 1.0
_ALONE_S = 2.0  # between beats, if there is no other node: less than nodes.LIVE_S
_FOLLOWED_S = 0.05  # between looks whether a promotion was followed
_LOOK_S = 5.0  # at the other nodes, for the metrics
_BEATEN = "beaten"  # its time says when a process of this service last wrote the row


class Work(NamedTuple):
    """The work of this process: requests that wait for the device, and predictions answered since its start."""

    waiting: int
    answered: int


class Presence:
    """Keep the row of this service while entered: written every second, every two if there is no other node, and with
    each load or unload.

    Of several web processes the one that finds the row that old writes it, for all of them: what they have loaded and
    have to do is in the files of `followers`. While the database is away, the service goes on without a row.
    """

    def __init__(
        self,
        store: Store,
        followers: Followers,
        models: Collection[str],
        *,
        address: str,
        software: str = "",
        work: Callable[[], Work] = lambda: Work(0, 0),
        count: Callable[[Mapping[str, int]], None] = lambda _: None,
    ) -> None:
        """`work` is called on the event loop, `count` in any thread with the number of nodes in each state."""
        self.id = _name(followers)
        self.address = address
        self.nodes = Nodes(store)
        self._store = store
        self._followers = followers
        self._models = models
        self._software = software
        self._work = work
        self._count = count
        self._state: Literal["serving", "leaving"] = "serving"
        self._changed = asyncio.Event()
        self._joined = self._ended = False
        self._written = True
        self._measured = (time.monotonic(), 0, 0.0)  # when, predictions until then, in a second
        self._beaten_at = self._looked_at = self._forgot_at = -math.inf
        self._others: list[str] = []
        self._twins: dict[str, float] = {}  # id of a node with the same address -> when it was last seen
        self._told = False  # of twins

    async def __aenter__(self) -> None:
        self._beating = asyncio.create_task(self._run())

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        self._changed.set()
        await self._beating  # not cancelled: a beat that is being written would outlast the row's removal
        if self._joined:
            await asyncio.to_thread(self._leave)

    def join(self) -> None:
        """Write the row for the first time, before the live versions are read: promotions wait for this node then."""
        self._joined = True
        self._beat()

    def changed(self, model: str, version: int) -> None:
        """Record that this process answers with that version, and write the row soon. For the event loop."""
        self._followers.write(model, version)
        self._changed.set()

    async def announce(self, model: str, version: int) -> None:
        """Write that this process will answer with that version: promotions that are made later wait for it."""
        self._followers.write(model, version)
        await asyncio.to_thread(self._beat)

    def unloaded(self, models: Collection[str]) -> None:
        """Record that this process loads the live versions of models on demand, and write the row soon."""
        self._followers.write_unloaded(models)
        self._changed.set()

    def leaving(self) -> None:
        """Write soon that this service stops: promotions do not wait for it, balancers send it nothing."""
        self._state = "leaving"
        self._changed.set()

    def behind(self, model: str, version: int, ago_s: float = 0.0) -> list[str]:
        """Return the addresses of the nodes that do not answer with that version in all of their processes.

        Of nodes that are live, or were so `ago_s` seconds ago. A process that loads the model on demand does: it reads
        the live version then. If the database cannot be asked, these are the nodes that were seen last.
        """
        own = [] if self._followers.versions(model) <= {version} else [self.address]
        try:
            return own + self.nodes.behind(model, version, but=self.id, ago_s=ago_s)
        except StoreUnavailable:
            return own + self._others

    async def everywhere(self, model: str, version: int, since: float, timeout_s: float) -> Sequence[str]:
        """Wait until all web processes of all live nodes answer with that version, at most `timeout_s` seconds.

        Returns the addresses of the nodes that do not; also of those that were live at `since`, a time of
        time.monotonic(), and are silent now.
        """
        behind = await self._until_none(partial(self.behind, model, version), since, timeout_s)
        if behind:
            fields = {"model": model, "version": version, "nodes": ", ".join(behind)}
            log.warning("promotion not followed by all nodes in time", extra=fields)
        return behind

    def follows(self, stages: Mapping[str, int]) -> None:
        """Record which stages of open trials this process follows, and write the row soon. For the event loop."""
        self._followers.write_trials(stages)
        self._changed.set()

    def behind_trial(self, trial: str, stage: int | None, ago_s: float = 0.0) -> list[str]:
        """Return the addresses of the nodes that do not follow a stage of a trial in all of their processes.

        None: that have not ended it. Of the nodes of `behind`.
        """
        own = [] if self._followers.stages().get(trial) == stage else [self.address]
        try:
            return own + self.nodes.behind_trial(trial, stage, but=self.id, ago_s=ago_s)
        except StoreUnavailable:
            return own + self._others

    async def everywhere_in(self, trial: str, stage: int | None, timeout_s: float) -> Sequence[str]:
        """Wait until all web processes of all live nodes follow a stage of a trial, None: its end, as `everywhere`
        does. Returns the addresses of the nodes that do not.
        """
        behind = await self._until_none(partial(self.behind_trial, trial, stage), time.monotonic(), timeout_s)
        if behind:
            fields = {"trial": trial, "stage": stage, "nodes": ", ".join(behind)}
            log.warning("trial not followed by all nodes in time", extra=fields)
        return behind

    async def _until_none(
        self, behind: Callable[[float], Sequence[str]], since: float, timeout_s: float
    ) -> Sequence[str]:
        """Wait until no node is behind. Returns the addresses of those that are after `timeout_s` seconds."""
        left: Sequence[str] = self._others
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while left := await asyncio.to_thread(behind, time.monotonic() - since):  # noqa: ASYNC110
                    await asyncio.sleep(_FOLLOWED_S)  # no event: another process would look as well
        return left

    @property
    def others(self) -> list[str]:
        """Return the addresses of the other nodes that were live a few seconds ago."""
        return self._others

    @property
    def is_alone(self) -> bool:
        """Whether this is the only web process, as far as it knows."""
        return self._followers.folder is None and not self._others

    async def _run(self) -> None:
        while not self._ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BEAT_S):
                    await self._changed.wait()
            changed = self._changed.is_set()
            self._changed.clear()
            if self._joined and not self._ended:
                try:
                    await self._tick(changed=changed)
                except Exception:  # of the edge rollout
                    log.exception("beat failed, it is tried again")

    async def _tick(self, *, changed: bool) -> None:
        self._followers.count(*self._work())
        if changed or self._is_due():
            await asyncio.to_thread(self._beat)
        if time.monotonic() - self._looked_at >= _LOOK_S:
            await asyncio.to_thread(self._look)

    def _is_due(self) -> bool:
        """Whether it is time that a process of this service writes the row."""
        limit_s = 0.9 * (_BEAT_S if self._others else _ALONE_S)
        folder = self._followers.folder
        if folder is None:
            return time.monotonic() - self._beaten_at >= limit_s
        try:
            return not 0 <= time.time() - (folder / _BEATEN).stat().st_mtime < limit_s
        except OSError:
            return True

    def _beat(self) -> None:
        try:
            with self._store.beat(int(self.id[:15], 16)) as connection:
                row = self._row()  # in its turn, so that the last one to write has read last
                self.nodes.beat(connection, row)
                if time.monotonic() - self._forgot_at >= FORGOTTEN_S / 2:
                    self.nodes.forget(connection, row)
                    self._forgot_at = time.monotonic()
        except StoreUnavailable as err:
            if self._written:
                log.warning("node not announced", extra={"address": self.address, "reason": err.detail})
            self._written = False
            return
        self._written = True
        self._beaten_at = time.monotonic()
        if self._followers.folder is not None:
            with contextlib.suppress(OSError):
                (self._followers.folder / _BEATEN).touch()

    def _row(self) -> Row:
        processes = self._followers.running()
        return Row(
            id=self.id,
            address=self.address,
            state=self._state,
            processes=len(processes),
            loaded={
                model: _agreed(found) for model in self._models if (found := _found(processes, model)) != {ON_DEMAND}
            },
            load={"waiting": sum(one.waiting for one in processes), "requests_per_s": self._rate(processes)},
            software=self._software,
            trials=agreed_stages(processes),
        )

    def _rate(self, processes: Sequence[Follower]) -> float:
        """Return the predictions answered in a second, measured since the last beat."""
        (before, known, rate), now = self._measured, time.monotonic()
        if now - before < _BEAT_S / 2:
            return rate
        answered = sum(one.answered for one in processes)
        rate = round(max(0, answered - known) / (now - before), 1)
        self._measured = now, answered, rate
        return rate

    def _look(self) -> None:
        """Count the nodes."""
        self._looked_at = time.monotonic()
        try:
            found = self.nodes.all()
        except StoreUnavailable:
            return
        self._others = [node.address for node in found if node.state == "serving" and node.id != self.id]
        self._count(Counter[str](node.state for node in found))
        self._warn_of_twins({node.id: node.seen_at for node in found if node.address == self.address})

    def _warn_of_twins(self, seen: Mapping[str, float]) -> None:
        """Log once that another node writes rows with this address. A row that was left by a node before is none."""
        alive = any(self._twins.get(node, at) < at for node, at in seen.items() if node != self.id)
        self._twins = dict(seen)
        if alive and not self._told:
            text = "another node has this address, so that balancers reach one of them: set TORCHLOOP_ADDRESS on both"
            log.warning(text, extra={"address": self.address})
        self._told = alive or (self._told and len(seen) > 1)

    def _leave(self) -> None:
        """Remove the row; another process of this service that stops later does so again."""
        with contextlib.suppress(StoreUnavailable), self._store.beat(int(self.id[:15], 16)) as connection:
            self.nodes.leave(connection, self.id)


def _name(followers: Followers) -> str:
    """Return the id of this service, the same in all of its web processes."""
    return (uuid4() if followers.folder is None else uuid5(NAMESPACE_OID, f"{getnode()} {followers.folder}")).hex


def _found(processes: Sequence[Follower], model: str) -> set[int]:
    """Return the versions of a model that the processes have loaded, or ON_DEMAND."""
    return {process.loaded[model] for process in processes if model in process.loaded}


def _agreed(found: Collection[int]) -> int | None:
    """Return the version that is loaded, if it is the same in all processes that have one."""
    versions = set(found) - {ON_DEMAND}
    return versions.pop() if len(versions) == 1 else None
