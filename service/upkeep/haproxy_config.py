"""Configuration of HAProxy in front of the nodes."""

import re
from collections.abc import Sequence

BACKENDS = ("predictions", "others")
SPARE = "127.0.0.1:9"  # address of a spare server: the discard port, where nothing listens
_TEXT = """\
# HAProxy 2.6 or newer in front of Torchloop. Written by `torchloop haproxy`; docs/several-machines.md explains it.

global
    maxconn 4096
    # A request is sent again to another node only if it fits into a buffer. For larger pictures and arrays raise it:
    # each request in progress has two, and with 262144 a request costs HAProxy twice the CPU.
    tune.bufsize 65536
    stats socket {stats_socket} mode 600 level admin
    hard-stop-after 60s

defaults
    mode http
    log global
    balance leastconn
    # A node that refuses a connection is left out at once, one that does not answer after two checks.
    option httpchk
    http-check send meth HEAD uri /health/ready ver HTTP/1.1 hdr Host localhost
    default-server check inter 500ms fastinter 250ms downinter 500ms fall 2 rise 2
    default-server observe layer4 error-limit 1 on-error mark-down init-addr last,libc,none
    timeout check 500ms
    timeout connect 250ms
    timeout queue 2s
    timeout client 75s
    timeout http-request 30s
    timeout http-keep-alive 60s
    retries 3
    option redispatch 1

frontend torchloop
    bind {bind}
    acl predicts path_reg /predict/[^/]+$
    acl predicts path_reg /v2/models/[^/]+(/versions/[0-9]+)?/infer$
    use_backend predictions if METH_POST predicts
    default_backend others

# Predictions change nothing, so each is sent again to another node if one fails, or does not answer within two seconds.
# Models that take longer need a longer timeout.
backend predictions
    option http-buffer-request
    timeout server 2s
    retry-on conn-failure empty-response junk-response response-timeout 503
{predictions}

# Streams of events, uploads, explanations, promotions: they may take long. Only reads are sent again. A connection to a
# node is used once, because a change cannot be sent again if the node closes an idle one in that moment.
backend others
    option http-server-close
    timeout server 10m
    retry-on conn-failure empty-response
    http-request disable-l7-retry unless METH_GET
{others}
"""


def configuration(addresses: Sequence[str], *, bind: str, stats_socket: str, spare: int) -> str:
    """Return the configuration with these nodes, and spare servers that the runtime socket can give to others."""
    lines = [f"    server {server_name(address)} {address}" for address in addresses]
    if spare:
        lines.append(f"    server-template spare 1-{spare} {SPARE} disabled")
    servers = dict.fromkeys(BACKENDS, "\n".join(lines))
    return _TEXT.format(bind=bind, stats_socket=stats_socket, **servers)


def server_name(address: str) -> str:
    """Return a name of a server: `10.0.0.5:8000`."""
    return re.sub(r"[^A-Za-z0-9_.:-]", "", address)
