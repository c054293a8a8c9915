"""The digest of the code that a network comes from, which is part of the key of its exports."""

import ast
import gc
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import models
from models.checkpoints import code
from models.checkpoints.code import code_digest, missing_class, network_digest
from models.checkpoints.record import Record
from models.checkpoints.storage import Storage
from models.spec import ModelSpec, by_name
from tests.fakes import LINE

NET = "from torch import nn\nclass Net(nn.Module):\n    pass\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own on the path of imports."""
    folder = tmp_path / "project"
    write(folder, "zoo/__init__.py", "")
    write(folder, "zoo/layers/__init__.py", "from .blocks import Block\n")
    write(folder, "zoo/layers/blocks.py", "import json\nBlock = 1\n")
    write(folder, "zoo/constants.py", "SIZE = 3\n")
    write(folder, "zoo/late.py", "WEIGHT = 1\n")
    write(folder, "zoo/named.py", NET)
    write(folder, "zoo/unrelated.py", "")
    write(
        folder,
        "zoo/net.py",
        "from . import constants\nfrom zoo.layers import Block\n"
        "def build():\n    from .late import WEIGHT\n    return 'zoo.named:Net', WEIGHT\n" + NET,
    )
    monkeypatch.syspath_prepend(folder)
    return folder


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def using(network: Any) -> ModelSpec:
    return ModelSpec(**{**vars(LINE), "network": network})


def key(network: Any = None) -> str:
    return code_digest("line", using(by_name("zoo.net:Net") if network is None else network))


@pytest.mark.parametrize(
    "name",
    [
        *("zoo/net.py", "zoo/__init__.py", "zoo/constants.py", "zoo/layers/__init__.py", "zoo/layers/blocks.py"),
        *("zoo/late.py", "zoo/named.py"),
    ],
)
def test_the_key_changes_with_each_file_that_the_network_imports(project: Path, name: str) -> None:
    before = key()
    path = project / name
    path.write_text(path.read_text() + "# changed\n")
    changed = key()
    path.write_text(path.read_text().removesuffix("# changed\n"))
    assert len({before, changed}) == 2
    assert key() == before
    assert not [module for module in sys.modules if module.split(".")[0] == "zoo"]  # nothing is imported


def test_the_key_does_not_change_with_other_files(project: Path) -> None:
    before = key()
    write(project, "zoo/unrelated.py", "SIZE = 4\n")
    assert key() == before


def test_a_file_of_the_same_length_that_is_written_in_the_same_second_counts(project: Path) -> None:
    path = project / "zoo" / "constants.py"
    before, seconds = key(), path.stat().st_mtime
    path.write_text("SIZE = 4\n")
    os.utime(path, ns=(int(seconds) * 10**9 + 1, int(seconds) * 10**9 + 1))
    assert key() != before


def test_an_unchanged_file_is_not_read_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is read again"))
    assert key() == before


def builder(*_: Any, **__: Any) -> None:
    """A function of this module, as a network of a spec."""


@pytest.mark.parametrize(
    "network",
    [
        by_name("zoo.net:Net"),
        partial(by_name("zoo.net:Net"), features=4),
        partial(builder, block=by_name("zoo.net:Net")),
        partial(partial(builder, by_name("zoo.net:Net")), 3),
    ],
    ids=["by_name", "partial", "argument", "nested"],
)
def test_a_network_is_found_by_whatever_the_spec_wraps_it_in(project: Path, network: Callable[..., Any]) -> None:
    before = key(network)
    write(project, "zoo/layers/blocks.py", "Block = 2\n")
    assert key(network) != before


def test_the_file_of_the_spec_is_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    write(tmp_path, "iris.py", "SCALE = 1\n")
    before = code_digest("iris", LINE)
    assert code_digest("iris", LINE) == before
    write(tmp_path, "iris.py", "SCALE = 22\n")
    assert code_digest("iris", LINE) != before


def test_the_digest_of_the_network_alone_follows_its_sources_only(project: Path) -> None:
    before = network_digest(using(by_name("zoo.net:Net")))
    write(project, "zoo/unrelated.py", "X = 1\n")
    assert network_digest(using(by_name("zoo.net:Net"))) == before
    write(project, "zoo/layers/blocks.py", "Block = 22\n")
    assert network_digest(using(by_name("zoo.net:Net"))) != before


def installed(folder: Path, version: str, distribution: str = "flowers") -> None:
    """A package as pip installs it."""
    write(folder, "flowers/__init__.py", "")
    write(folder, "flowers/net.py", NET)
    for old in folder.glob("*.dist-info"):
        (old / "METADATA").unlink()
        (old / "RECORD").unlink()
        old.rmdir()
    information = f"{distribution.replace('-', '_')}-{version}.dist-info"
    write(folder, f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    write(folder, f"{information}/RECORD", "flowers/__init__.py,,\nflowers/net.py,,\n")


@pytest.mark.parametrize("distribution", ["flowers", "flower-networks"])
def test_an_installed_package_counts_with_its_version(
    distribution: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "lib" / "site-packages"
    found = []
    for version in ("1.0", "1.1", "1.0"):
        installed(packages, version, distribution)
        code._installed.cache_clear()  # as in a new process
        code._distributions.cache_clear()
        monkeypatch.syspath_prepend(packages)
        found.append(key(by_name("flowers.net:Net")))
    assert found[0] == found[2] != found[1]
    assert key(by_name("flowers.net:Net")) == found[0]
    write(packages, "flowers/net.py", NET + "# pip would not do this\n")
    assert key(by_name("flowers.net:Net")) == found[0]


def test_a_package_that_was_copied_among_the_installed_ones_counts_with_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    write(packages, "copied_by_hand.py", NET)
    monkeypatch.syspath_prepend(packages)
    before = key(by_name("copied_by_hand:Net"))
    write(packages, "copied_by_hand.py", NET + "# changed\n")
    assert key(by_name("copied_by_hand:Net")) != before


def test_a_source_that_is_not_python_and_a_module_that_is_missing_stop_nothing(project: Path) -> None:
    write(project, "zoo/net.py", "import nosuchmodule, zoo.nosuchmodule\ndef f(:\n")
    before = key()
    write(project, "zoo/net.py", "def f(:\n")
    assert key() != before


def test_the_key_names_no_folder(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    moved = project.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", [str(moved), *sys.path[1:]])
    assert key() == before


def test_a_changed_module_outside_of_models_has_another_export(project: Path, tmp_path: Path) -> None:
    storage, record = Storage(tmp_path), Record(model="line", sha256="1")
    before = storage.export(record, using(by_name("zoo.net:Net")))
    write(project, "zoo/constants.py", "SIZE = 2 * 3\n")
    assert storage.export(record, using(by_name("zoo.net:Net"))) != before


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("zoo.net:Nte", 'by_name("zoo.net:Nte"): there is no Nte in zoo.net; it has Net'),
        ("zoo.nets:Net", "there is no module 'zoo.nets'"),
        ("zoo.net", "there is no  in zoo.net"),
        (":", "there is no module ''"),
        ("zoo.net:Net", ""),
        ("zoo.net:Block", ""),
        ("zoo.dynamic:Anything", ""),
        ("zoo.stars:Anything", ""),
        ("zoo.wrong:Anything", ""),
    ],
)
def test_a_class_that_does_not_exist_is_found_without_an_import(project: Path, network: str, reason: str) -> None:
    write(project, "zoo/dynamic.py", "def __getattr__(name):\n    return 1\n")
    write(project, "zoo/stars.py", "from zoo.net import *\n")
    write(project, "zoo/wrong.py", "def f(:\n")
    for wrapped in (by_name(network), partial(by_name(network), features=3)):
        found = missing_class(wrapped)
        assert reason in found
        assert bool(found) == bool(reason)
        if found:
            assert found.startswith("tests/test_checkpoints_code.py, line ")
    assert missing_class(LINE.network) == ""


class Switching:
    """Garbage that lets another thread run when it is collected, also in the middle of a call into C."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        time.sleep(0)


def test_a_parse_that_another_thread_disturbed_is_tried_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse, failures = ast.parse, iter([SystemError, SystemError])

    def disturbed(content: bytes) -> Any:
        if error := next(failures, None):
            raise error("AST constructor recursion depth mismatch (before=45, after=50)")
        return parse(content)

    monkeypatch.setattr(ast, "parse", disturbed)
    code._read.clear()
    assert len(key()) == 64
    assert next(failures, None) is None


@pytest.mark.slow
def test_threads_may_compute_digests_at_once(project: Path) -> None:
    deep = "x = " + "(" * 50 + "1 + 1" + ")" * 50 + "\n"
    write(project, "zoo/net.py", deep * 30 + NET)
    before = gc.get_threshold()

    def digest(_: int) -> str:
        for _ in range(20):
            Switching()
        code._read.clear()  # as in a new process
        return network_digest(using(by_name("zoo.net:Net")))

    gc.set_threshold(50)
    try:
        for _ in range(15):  # without the lock, at least one of three pools fails, with its first digests
            with ThreadPoolExecutor(4) as pool:
                assert len(set(pool.map(digest, range(8)))) == 1
    finally:
        gc.set_threshold(*before)


def test_a_namespace_that_distributions_share_counts_by_their_versions() -> None:
    _, installed = code._walk({"opentelemetry.exporter.otlp.proto.http.trace_exporter"})
    assert "opentelemetry-sdk" in installed["opentelemetry"]
