"""Servers of a running HAProxy, by its runtime socket.

A server is in use, drained (it gets no new requests), or in maintenance: a spare one, to which an address may be given.
"""

import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service.delivery.nodes import Node
from service.upkeep.haproxy_config import BACKENDS

_TIMEOUT_S = 2.0
_MAINTENANCE, _DRAINED = 0x01, 0x08  # of srv_admin_state
Use = Literal["ready", "drain", "maint"]


class NoHAProxy(Exception):
    """HAProxy cannot be reached, or refuses a command. The message names the way out."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server of a backend; `address` is IP:PORT."""

    backend: str
    name: str
    address: str
    use: Use


class Runtime:
    """The runtime socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def servers(self) -> list[Server]:
        """Return the servers of our backends. Raises NoHAProxy."""
        head, *rows = [line.split() for line in self._ask("show servers state").splitlines()[1:] if line.strip()]
        found = [dict(zip(head[1:], row, strict=False)) for row in rows]  # the head begins with #
        return [_server(row) for row in found if row["be_name"] in BACKENDS]

    def apply(self, command: str) -> None:
        """Run a command. Raises NoHAProxy if it is refused."""
        answer = self._ask(command).strip()
        if answer and not answer.startswith(("IP changed", "port changed", "no need to change")):
            raise NoHAProxy(f"HAProxy refuses `{command}`: {' '.join(answer.split())}")

    def _ask(self, command: str) -> str:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_TIMEOUT_S)
                connection.connect(str(self._path))
                connection.sendall(f"{command}\n".encode())
                return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
        except OSError as err:
            reason = err.strerror or "no answer"
            raise NoHAProxy(f"{self._path} is not a socket of a running HAProxy ({reason}): check --socket") from err


def _server(row: Mapping[str, str]) -> Server:
    state = int(row["srv_admin_state"])
    use: Use = "maint" if state & _MAINTENANCE else "drain" if state & _DRAINED else "ready"
    return Server(row["be_name"], row["srv_name"], f"{row['srv_addr']}:{row['srv_port']}", use)


def commands(servers: Sequence[Server], found: Sequence[Node]) -> Iterator[str]:
    """Return the commands that give each serving node a server, drain those that leave, and free those that are gone.

    A silent node keeps its server: its health checks tell better whether it answers. Without any serving node nothing
    is changed. Raises NoHAProxy if there are too few spare servers.
    """
    uses: Mapping[str, Use | None] = {
        address: {"serving": "ready", "leaving": "drain"}.get(node.state)  # type: ignore[misc]
        for node in sorted(found, key=lambda node: node.state != "silent")
        for address in _resolved(node.address)
    }
    if "ready" not in uses.values():
        return
    for backend in BACKENDS:
        yield from _of_backend([server for server in servers if server.backend == backend], uses)


def _of_backend(servers: Sequence[Server], uses: Mapping[str, Use | None]) -> Iterator[str]:
    known = {server.address for server in servers}
    spare = [server for server in servers if server.address not in uses and server.use == "maint"]
    for server in servers:
        use = uses.get(server.address, "maint")
        if use is not None and use != server.use:
            yield f"set server {server.backend}/{server.name} state {use}"
    for address in [address for address, use in uses.items() if use == "ready" and address not in known]:
        if not spare:
            raise NoHAProxy(f"HAProxy has no spare server for {address}: raise --spare, and write its configuration")
        server = spare.pop(0)
        host, _, port = address.rpartition(":")
        name = f"{server.backend}/{server.name}"
        yield f"set server {name} addr {host} port {port}"
        yield f"set server {name} state ready; set server {name} health down"  # until its checks succeed


def _resolved(address: str) -> list[str]:
    """Return a node's address as IP:PORT; nothing if its name is unknown here."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return []
    return [":".join(map(str, found[0][4][:2]))]
