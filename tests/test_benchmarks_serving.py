"""Serving benchmarks: parsing wrk's output, tables, and skipped measurements."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import Options, batches, growth, load, medium, report, servers, serving, serving_tables
from benchmarks import __main__ as command
from benchmarks.load import Load, LoadError
from benchmarks.serving_tables import CONNECTIONS, Round, Visit
from tests.fakes import ROOT

COUNTS = {
    "requests": 1000, "duration_us": 2_000_000, "p50_us": 1500, "p99_us": 3000,
    "socket": 1, "timeout": 2, "status": 4, "wrong": 5,
}  # fmt: skip


def test_the_last_line_of_wrk_is_read_and_what_is_wrong_counts_once() -> None:
    seen = load.parse(f"Running 2s test\n  1 threads\n{json.dumps(COUNTS)}\n")
    assert seen == Load(requests=1000, seconds=2.0, p50_ms=1.5, p99_ms=3.0, bad=8)  # a bad status is wrong, too
    assert seen.rate == 496


@pytest.mark.parametrize("output", ["", "unable to connect\n", "[]", '{"requests": 1}'])
def test_output_without_counts_is_an_error_and_no_figure(output: str) -> None:
    with pytest.raises(LoadError, match=r"wrk\.lua wrote no result"):
        load.parse(output)


@pytest.mark.parametrize("main", [serving.main, growth.main, medium.main])
def test_without_wrk_it_is_skipped_and_says_how_to_get_it(
    main: Callable[[Options], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(Options()).startswith("  skipped: install wrk (apt-get install wrk")
    assert load.version() is None


def test_a_module_is_a_benchmark_if_it_defines_main(tmp_path: Path) -> None:
    files = {
        "one": "def main(options): ...",
        "part": "main = 1",
        "__main__": "def main(): ...",
        "_x": "def main(): ...",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    assert command.discover(tmp_path) == ["one"]
    assert {"epoch", "growth", "loop", "serving"} <= set(command.discover(ROOT / "benchmarks"))


def test_a_table_is_as_wide_as_its_cells_and_a_reason_widens_no_column() -> None:
    rows = [["torchloop", "10"], ["mosec", "1000"]]
    assert report.table(["", "a"], rows) == "                a\n  torchloop    10\n  mosec      1000"
    rows = [["a", "1", "22"], ["b", "not installed: no network"]]
    assert report.table(["", "x", "y"], rows).splitlines()[1:] == ["  a  1  22", "  b  not installed: no network"]


def test_the_page_holds_command_machine_and_tables() -> None:
    page = report.markdown("python -m benchmarks x", {"date": "2026-01-02"}, {"x": "  a  1", "y": "  b  2"})
    assert page.startswith("# Benchmarks\n")
    assert "```console\npython -m benchmarks x\n```" in page
    assert "| date | 2026-01-02 |" in page
    assert page.endswith("## x\n\n```text\n  a  1\n```\n\n## y\n\n```text\n  b  2\n```\n")


def test_the_facts_name_machine_and_versions_and_no_folder() -> None:
    known = report.facts()
    assert known["litserve"] == "0.2.19, in its own environment"
    assert {"date", "machine", "system", "Python", "torch", "onnxruntime", "mosec", "wrk"} <= known.keys()
    assert "cores" in known["machine"]
    assert str(ROOT) not in str(known)


def test_write_writes_the_page_and_makes_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "main", lambda options: f"  {options.seconds}")
    monkeypatch.setattr(report, "facts", lambda: {"date": "today"})
    command.main(["serving", "--seconds", "3", "--write", str(tmp_path / "docs" / "page.md")])
    page = (tmp_path / "docs" / "page.md").read_text()
    assert "## serving\n\n```text\n  3\n```" in page
    assert "python -m benchmarks serving --seconds 3 --write" in page


def visit(rate: float, bad: int = 0, cpu_us: float = 300.0) -> Visit:
    seen = Load(requests=int(rate) * 2 + bad, seconds=2.0, p50_ms=4.0, p99_ms=8.0, bad=bad)
    return Visit(start_s=3.0, loads=dict.fromkeys(CONNECTIONS, seen), cpu_us=cpu_us, resident_mb=[200, 150, 50])


FLOORS = {"decode a PNG with Pillow": 50.0, "JSON of one answer with orjson": 10.0}
FLOORS |= {"ONNX Runtime, batch 1": 90.0, "ONNX Runtime, batch 16": 70.0, "eager PyTorch, batch 1": 400.0}


def seen_round(visits: Mapping[str, Visit]) -> Round:
    rates = dict.fromkeys(map(batches._bare, batches.THREADS), 1e4)
    rates |= {batches._SERVICE: 9000.0, batches._SERVICE_NPY: 9500.0, "litserve": 3000.0}
    return Round(visits=visits, floors=FLOORS, batches=rates)


ROUNDS = [
    seen_round({
        "torchloop": visit(rate, bad=1), "torchloop, fp32": visit(rate), "handwritten": visit(1000),
        "bare": visit(9000, cpu_us=70.0),
        "mosec": visit(500), "mosec, no batches": visit(2000),
    })
    for rate in (2000, 4000, 9000)
]  # fmt: skip
NAMES = ["torchloop", "handwritten", "mosec", "mosec, no batches", "litserve", "bare"]


def test_tables_show_medians_ratios_bad_answers_and_missing_servers() -> None:
    lines = serving_tables.tables(ROUNDS, {"litserve": "not installed: no network"}, {}, NAMES).splitlines()
    cells = {line.split("  ")[1]: line.split() for line in reversed(lines) if line.strip()}
    rows = [line.split() for line in lines]
    assert ["torchloop", "4000", "4000", "4000", "4000", "12"] in rows  # one in each of three rounds at four counts
    assert ["torchloop", "/", "handwritten", "4.00", "4.00", "4.00", "4.00"] in rows
    assert ["torchloop", "/", "mosec", "2.00", "2.00", "2.00", "2.00"] in rows  # to the better of the two
    assert ["torchloop", "300", "4.00", "8.00", "2.00", "400", "350", "3.00"] in rows
    assert "  litserve                         not installed: no network" in lines
    assert cells["sum of server, decode, JSON and the cheapest ONNX Runtime"][-1] == "200"
    assert sum("litserve" in line for line in lines) >= 2


def test_aims_are_met_missed_or_unknown() -> None:
    lines = serving_tables._aims(ROUNDS).splitlines()
    reached = {line.strip().rsplit("  ", 2)[0].split("  ")[0]: line.split()[-2:] for line in lines[1:]}
    assert reached["at least 2x mosec at 64"] == ["2", "yes"]
    assert reached["at least 2x handwritten at 1"] == ["4", "yes"]
    assert reached["at most 1.6x the sum of the floors"] == ["1.5", "yes"]
    assert reached["at most 120 MB in one web process, in float32"] == ["200", "no"]
    assert reached["at least 2x litserve, 256 pictures"] == ["3", "yes"]
    assert reached["at least 0.85x ONNX Runtime alone on all cores, 256 pictures"] == ["0.95", "yes"]
    unknown = serving_tables._aims([seen_round({})])
    assert "at least 2x mosec at 64 not measured" in " ".join(unknown.split())


def test_a_run_in_which_nothing_started_still_has_its_tables() -> None:
    faults = dict.fromkeys(NAMES, "not started: port taken")
    text = serving_tables.tables([seen_round({})], faults, {"torchloop": "not started: port taken"}, NAMES)
    assert text.count("not started: port taken") == len(NAMES) + 1


def test_a_failing_server_is_left_out_and_the_others_go_on() -> None:
    faults: dict[str, str] = {}
    tried: list[str] = []

    def action(server: servers.Server) -> None:
        tried.append(server.name)
        if server.name == "litserve":
            raise servers.NotInstalled("no network")

    for server in (servers.LITSERVE, servers.HANDWRITTEN, servers.LITSERVE):
        servers.attempt(server, faults, action)
    assert faults == {"litserve": "not installed: no network"}
    assert tried == ["litserve", "handwritten"]


def test_an_environment_that_cannot_be_made_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "TOOLS", tmp_path)
    monkeypatch.setattr(servers, "PEERS", {"mosec": ("mosec==0.9.8",)})
    ran = []

    def fail(words: list[str], **_: object) -> None:
        ran.append(words)
        if "pip" in words:
            raise subprocess.CalledProcessError(1, words, stderr="noise\nERROR: no matching   distribution\nmore noise")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(servers.NotInstalled, match=r"^ERROR: no matching distribution$"):
        servers.python("mosec")
    assert ran[1][-1] == "mosec==0.9.8"
    assert servers.python("") == sys.executable


def test_peers_are_pinned_to_one_version_of_everything() -> None:
    assert all("==" in pin for pins in servers.PEERS.values() for pin in pins)


def test_drawings_are_the_same_each_time_and_not_all_of_one_digit() -> None:
    pictures, labels = batches.drawings(64)
    assert (pictures.shape, len(labels)) == ((64, 28, 28), 64)
    assert pictures.dtype == np.uint8
    assert len(set(labels)) > 4
    batches.drawings.cache_clear()
    assert (batches.drawings(64)[0] == pictures).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_picture_has_the_requested_size(tmp_path: Path, kind: str) -> None:
    body = growth.drawn(640, 480, kind)
    (tmp_path / "picture").write_bytes(body.content)
    with Image.open(tmp_path / "picture") as picture:
        assert (picture.size, picture.format) == ((640, 480), kind)
    assert body.media_type == f"image/{kind.lower()}"


def test_added_models_have_files_and_records_with_their_names(tmp_path: Path) -> None:
    servers.copy_checkout(tmp_path)
    assert growth.add_models(tmp_path, 2) == ["mnist_01", "mnist_02"]
    record = json.loads((tmp_path / "models" / "pretrained" / "mnist_02.json").read_text())
    assert record["model"] == "mnist_02"
    assert (tmp_path / "training" / "mnist_02.py").is_file()


def test_growth_tables_tell_medians() -> None:
    seen = [Load(requests=n, seconds=1.0, p50_ms=2.0, p99_ms=n / 10, bad=0) for n in (10, 20, 90)]
    assert growth.connections_table({4: seen}).splitlines()[1].split() == ["4", "20", "2.00", "2.00", "0"]
    assert growth.samples_table({16: seen}).splitlines()[1].split() == ["16", "320", "2.00", "0"]
    grown = [growth.Grown(seen=one, resident_mb=500.0, start_s=3.0) for one in seen]
    assert growth.models_table({30: grown}).splitlines()[1].split() == ["30", "20", "2.00", "500", "3.00", "0"]
    pictures = growth.pictures_table({(0, 0, ""): [(seen[0], seen[0])], (28, 28, "PNG"): [(seen[0], seen[1])]})
    assert pictures.splitlines()[1].split() == ["none", "2.00", "1.00", "0"]
    assert pictures.splitlines()[2].split() == ["28", "x", "28", "PNG", "2.00", "0", "2.00", "2.00", "0"]


def test_of_no_figure_the_median_is_unknown() -> None:
    assert math.isnan(serving_tables._over([], lambda _: 1.0))


def test_the_table_of_the_medium_network_has_ratios_within_a_round_and_names_what_failed() -> None:
    def visit(requests: int) -> medium.Visit:
        seen = Load(requests=requests, seconds=2.0, p50_ms=1.0, p99_ms=2.0, bad=0)
        return medium.Visit(seen=seen, cpu_ms=3.0)

    rounds = [
        {"torchloop": visit(300), "torchloop, fp32": visit(200), "mosec": visit(100)},
        {"torchloop": visit(30), "torchloop, fp32": visit(10), "mosec": visit(20)},
    ]
    names = ["torchloop", "torchloop, fp32", "mosec", "litserve"]
    lines = medium.tables(rounds, {"litserve": "not installed"}, names).splitlines()
    assert next(line.split() for line in lines if line.startswith("  litserve ")) == ["litserve", "not", "installed"]
    assert next(line.split() for line in lines if "torchloop / mosec" in line)[3:] == [
        "2.25",
        "at",
        "least",
        "2",
        "yes",
    ]
    assert next(line.split() for line in lines if "torchloop, fp32 / mosec" in line)[4] == "1.25"
