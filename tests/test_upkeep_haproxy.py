"""torchloop haproxy: the configuration, and the commands for the servers of a running HAProxy."""

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.command import main
from service.delivery.nodes import Node, Nodes, Row, State
from service.store.database import Store
from service.upkeep.haproxy_config import SPARE, configuration
from service.upkeep.haproxy_runtime import NoHAProxy, Runtime, Server, Use, commands
from tests.balancer import binary
from tests.fakes import ROOT
from tests.upkeep import environment

ROW = Row(
    id="a" * 32, address="10.0.0.1:8000", state="serving", processes=1, loaded={}, load={}, software="torchloop",
    trials={},
)  # fmt: skip
EXAMPLES = ("10.0.0.11:8000", "10.0.0.12:8000")
STATES = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_port
3 predictions 1 a 10.0.0.1 2 0 8000
3 predictions 2 spare1 127.0.0.1 0 5 9
4 elsewhere 1 a 10.0.0.1 2 0 8000
5 others 1 a 10.0.0.1 2 8 8000
"""


def test_the_configuration_in_deploy_is_the_printed_one() -> None:
    found = configuration(EXAMPLES, bind="*:8080", stats_socket="/run/haproxy/admin.sock", spare=16)
    assert (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text() == found


@pytest.mark.parametrize("addresses", [(), EXAMPLES, ("[2001:db8::5]:8000", "web-1.invalid:8000")], ids=len)
@pytest.mark.parametrize("spare", [0, 16])
def test_haproxy_accepts_the_configuration(addresses: tuple[str, ...], spare: int, tmp_path: Path) -> None:
    program, file = binary(), tmp_path / "haproxy.cfg"
    text = configuration(addresses, bind="127.0.0.1:8080", stats_socket=str(tmp_path / "admin.sock"), spare=spare)
    file.write_text(text)
    done = subprocess.run([program, "-c", "-f", file], capture_output=True, text=True, check=False)
    assert (done.returncode, "[ALERT]" in done.stderr) == (0, False), done.stderr


def node(address: str, state: State) -> Node:
    return Node(
        id=address, address=address, state=state, started_at=1, seen_at=1, silent_s=0, processes=1, loaded={}, load={},
        software="",
    )  # fmt: skip


def servers(**uses: tuple[str, Use]) -> list[Server]:
    """Servers of both backends, by name: address and use."""
    return [
        Server(backend, name, address, use)
        for backend in ("predictions", "others")
        for name, (address, use) in uses.items()
    ]


def said(found: list[Server], *nodes: Node) -> list[str]:
    """The commands for one of the backends; those for the other are the same."""
    all_ = list(commands(found, nodes))
    ours, others = ([one for one in all_ if name in one] for name in ("predictions/", "others/"))
    assert [one.replace("predictions/", "others/") for one in ours] == others
    return ours


def test_a_node_that_joins_gets_a_spare_server_one_that_leaves_is_drained_and_one_that_is_gone_freed() -> None:
    found = servers(
        a=("10.0.0.1:8000", "ready"), b=("10.0.0.2:8000", "ready"), c=("10.0.0.3:8000", "ready"),
        d=("10.0.0.4:8000", "maint"), spare1=(SPARE, "maint"), spare2=(SPARE, "maint"),
    )  # fmt: skip
    nodes = [node("10.0.0.1:8000", "serving"), node("10.0.0.2:8000", "leaving"), node("10.0.0.4:8000", "serving")]
    assert said(found, *nodes, node("10.0.0.9:81", "serving")) == [
        "set server predictions/b state drain",
        "set server predictions/c state maint",
        "set server predictions/d state ready",
        "set server predictions/spare1 addr 10.0.0.9 port 81",
        "set server predictions/spare1 state ready; set server predictions/spare1 health down",
    ]


def test_a_silent_node_keeps_its_server_and_gets_none() -> None:
    found = servers(a=("10.0.0.1:8000", "ready"), b=("10.0.0.2:8000", "ready"), spare1=(SPARE, "maint"))
    silent = [node(f"10.0.0.{number}:8000", "silent") for number in (2, 3)]
    assert said(found, node("10.0.0.1:8000", "serving"), *silent) == []
    assert said(found, *silent, node("10.0.0.9:80", "leaving")) == []  # there is no live node: nothing is changed
    assert said(found, silent[0], node("10.0.0.2:8000", "serving"))[0] == "set server predictions/a state maint"


def test_a_node_for_which_no_server_is_left_is_named() -> None:
    nodes = [node("10.0.0.1:8000", "serving"), node("10.0.0.2:8000", "serving"), node("no.invalid:1", "serving")]
    with pytest.raises(NoHAProxy, match=r"no spare server for 10\.0\.0\.2:8000: raise --spare"):
        said(servers(a=("10.0.0.1:8000", "ready")), *nodes)


@contextmanager
def answering(path: Path, *answers: str) -> Iterator[list[str]]:
    """A runtime socket with these answers, and the commands that came."""
    came: list[str] = []

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                came.append(connection.recv(4096).decode().strip())
                connection.sendall(answer.encode())

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield came
        thread.join(60)


def test_servers_and_refusals_are_read_from_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with answering(path, STATES, "\n", "No such server.\n") as came:
        runtime = Runtime(path)
        assert runtime.servers() == [
            Server("predictions", "a", "10.0.0.1:8000", "ready"),
            Server("predictions", "spare1", SPARE, "maint"),
            Server("others", "a", "10.0.0.1:8000", "drain"),
        ]
        runtime.apply("set server others/a state ready")
        with pytest.raises(NoHAProxy, match=r"HAProxy refuses `set server others/z state ready`: No such server\."):
            runtime.apply("set server others/z state ready")
    assert came[0] == "show servers state"


def test_the_command_writes_the_serving_nodes_once_and_says_what_it_did(
    store: Store, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [ROW, ROW._replace(id="b" * 32, address="10.0.0.2:8000", state="leaving")]
    for row in rows:
        with store.beat(1) as connection:
            Nodes(store).beat(connection, row)
    for name, value in environment(store, database_url).items():
        monkeypatch.setenv(name, value)
    assert main(["haproxy", "--bind", "*:80", "--spare", "2", "--stats-socket", "/s"]) == 0
    printed = capsys.readouterr().out
    assert printed == configuration(["10.0.0.1:8000"], bind="*:80", stats_socket="/s", spare=2)
    assert main(["haproxy", "--json"]) == 0
    assert "server 10.0.0.1:8000 10.0.0.1:8000" in json.loads(capsys.readouterr().out)["configuration"]
    file = tmp_path / "made" / "haproxy.cfg"
    for expected in (f"wrote {file}\n", ""):
        assert main(["haproxy", "--output", str(file)]) == 0
        assert capsys.readouterr().out == expected
    path = tmp_path / "s"
    with answering(path, STATES, "") as came:
        assert main(["haproxy", "--socket", str(path)]) == 0
    assert capsys.readouterr().out == "set server others/a state ready\n"
    assert came[1:] == ["set server others/a state ready"]


def test_what_cannot_be_reached_is_named_in_one_line(
    store: Store, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(store, database_url).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "file").write_text("")
    assert main(["haproxy", "--socket", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith(
        f"torchloop: {tmp_path / 'none'} is not a socket of a running HAProxy (No"
    )
    assert main(["haproxy", "--output", str(tmp_path / "file" / "haproxy.cfg")]) == 1
    assert "haproxy.cfg cannot be written (" in capsys.readouterr().err
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:  # noqa: PTH123 - a device
        patch.setattr("sys.stdout", full)
        assert main(["haproxy"]) == 1
    assert capsys.readouterr().err == "torchloop: the output cannot be written (No space left on device)\n"
    monkeypatch.setenv("TORCHLOOP_DATABASE_URL", "")
    monkeypatch.setenv("TORCHLOOP_STORE", str(tmp_path / "empty"))
    assert main(["haproxy"]) == 2
    assert "there is no database in the store folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--spare", "-3"], "argument --spare: -3 is not a number from 0 to 9999"),
        (["--spare", "100000"], "argument --spare: 100000 is not a number from 0 to 9999"),
        (["--watch"], "--watch needs --socket or --output"),
    ],
)
def test_options_that_make_no_configuration_are_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["haproxy", *words])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
