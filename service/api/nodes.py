"""GET /nodes: the services that share the database."""

import asyncio
from collections.abc import Mapping
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.api.schemas import Time
from service.delivery.presence import Presence
from service.web.auth import Access

ACCESS: Mapping[str, Access] = {"GET /nodes": Access("predict", 503)}


class Load(BaseModel):
    """The work of a node, all its web processes together."""

    waiting: int = Field(0, description="requests that wait for the device")
    requests_per_s: float = Field(0, description="predictions answered in a second")


class NodeInfo(BaseModel):
    """One node: the web processes of a machine that share a port. Times are by the clock of the database."""

    id: str
    address: str = Field(description="where other machines reach it: TORCHLOOP_ADDRESS")
    state: Literal["serving", "leaving", "silent"] = Field(
        description="leaving: it stops; silent: it has not been seen for three seconds, and is forgotten after sixty"
    )
    started_at: Time
    seen_at: Time
    processes: int = Field(description="its web processes")
    loaded: dict[str, int | None] = Field(
        description="the version of each model that it answers with; null: none, or not the same in all its "
        "processes; without the models that it loads on demand"
    )
    load: Load
    software: str


class NodeList(BaseModel):
    """The services that share this one's database, the oldest first."""

    node: str = Field(description="id of the node that answers this request")
    nodes: list[NodeInfo]


def router(presence: Presence) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/nodes", summary="The services that share the database")
    async def list_nodes() -> NodeList:
        """What each of them has loaded, and its work. On one machine it is this service alone."""
        found = await asyncio.to_thread(presence.nodes.all)
        infos = [NodeInfo.model_validate(node, from_attributes=True) for node in found]
        return NodeList(node=presence.id, nodes=infos)

    return routes
