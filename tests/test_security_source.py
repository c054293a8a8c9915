"""Promises of docs/security.md for the source code, checked in every file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import sources
from tests.fakes import ROOT
from tests.sources import FILES, called, imports

UNSAFE = {"dill", "joblib", "cloudpickle", "marshal", "shelve", "jsonpickle", "pickle.loads", "pickle.load"}
UNPACKERS = {"zipfile", "tarfile", "shutil.unpack_archive", "patoolib", "py7zr"}
TEMPLATES = {"jinja2", "mako", "string.Template"}
CALLS = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "__import__"}
PORTS = {"multiprocessing", "xmlrpc", "socketserver", "grpc", "zmq"}


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    """Every node of every source file, with its file."""
    return ((path, node) for path in FILES for node in sources.nodes(path))


def imported(names: set[str]) -> list[tuple[str, str]]:
    """Where something of `names` is imported: file and module."""
    return [
        (path.name, module)
        for path in FILES
        for module in imports(path)
        if any(f"{module}.".startswith(f"{name}.") for name in names)
    ]


def test_s04_no_archive_is_unpacked() -> None:
    in_memory = {("npz.py", "zipfile"), ("numbers.py", "zipfile.BadZipFile")}  # of the client: answers of the service
    datasets = {
        ("archives.py", "zipfile"),
        ("archives.py", "tarfile"),
    }  # to names of our own: tests/test_datasets_hostile
    bundles = {("bundle.py", "tarfile"), ("bundles.py", "tarfile")}  # one header at a time: see below
    assert set(imported(UNPACKERS)) == in_memory | datasets | bundles  # and no more than a member declares
    of_bundles = {
        ast.unparse(node)
        for path, node in nodes()
        if path.name in {"bundle.py", "bundles.py"} and isinstance(node, ast.Attribute)
    }
    headers = {"TarInfo", "TarInfo.frombuf", "TarError", "BLOCKSIZE", "GNU_FORMAT"}
    kinds = {"REGTYPE", "AREGTYPE", "XHDTYPE", "XGLTYPE"}
    used = {name for name in of_bundles if name.startswith("tarfile.")}
    assert used == {f"tarfile.{name}" for name in headers | kinds}
    assert not [path for path, node in nodes() if called(node).endswith((".extractall", ".unpack_archive"))]


def test_s07_s32_nothing_is_unpickled_and_no_unpickler_is_imported() -> None:
    assert not imported(UNSAFE)
    for path, node in nodes():
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
            assert node.attr == "UnpicklingError", path
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False", path


def test_s07_every_load_sets_weights_only_and_has_no_fallback() -> None:
    loads = [(path, node) for path, node in nodes() if called(node) == "torch.load"]
    assert loads
    for path, node in loads:
        assert isinstance(node, ast.Call)
        assert {word.arg: ast.unparse(word.value) for word in node.keywords}["weights_only"] == "True", path
    for path, node in nodes():
        if isinstance(node, ast.ExceptHandler):
            assert not [inner for inner in ast.walk(node) if called(inner).endswith("load")], path


def test_s10_s16_s23_no_shell_and_nothing_that_is_text_is_run() -> None:
    for path, node in nodes():
        assert called(node) not in CALLS, path
        assert not called(node).endswith("_shell"), path
        if isinstance(node, ast.keyword) and node.arg == "shell":
            assert ast.unparse(node.value) == "False", path


def test_s01_yaml_is_read_safely_or_not_at_all() -> None:
    for path, node in nodes():
        if called(node).startswith("yaml."):
            assert called(node) == "yaml.safe_load", path


def test_s23_nothing_is_made_of_a_template() -> None:
    assert not imported(TEMPLATES)


def _is_arithmetic(node: ast.BinOp) -> bool:
    """Whether one side is a number or the greater of two: then it is a division, and no path is joined."""
    return called(node.right) == "max" or any(
        isinstance(side, ast.Constant) and isinstance(side.value, int | float) for side in (node.left, node.right)
    )


def test_s13_routes_build_no_path_from_request_data() -> None:
    """The parts of a path are constants and what the database says of a job that is there."""
    joined = set()
    for path in sorted((ROOT / "service" / "api").rglob("*.py")):
        for node in sources.nodes(path):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and not _is_arithmetic(node):
                joined.add(ast.unparse(node))
            assert called(node) not in {"open", "os.path.join"}, path
            assert not called(node).endswith(("joinpath", "relative_to", "with_name")), path
            if called(node) in {"Path", "FileResponse"}:
                assert isinstance(node, ast.Call)
                assert ast.unparse(node.args[0]) in {"__file__", "path"}, path
    assert joined == {"Path(__file__).parents[1] / 'page'"}
    assert "storage.plot(job.id)" in (ROOT / "service" / "api" / "jobs.py").read_text()


def test_s21_nothing_is_profiled_or_proxied() -> None:
    routes = {path.stem for path in (ROOT / "service" / "api").rglob("*.py")}
    assert not routes & {"profile", "proxy", "debug", "logs"}
    sending = [
        path for path in FILES if "client" not in path.parts and imports(path) & {"httpx", "requests", "aiohttp"}
    ]
    assert sending == [ROOT / "service" / "jobs" / "webhooks.py"]  # to addresses in the settings, and to no redirect


def test_s26_no_endpoint_is_chosen_by_the_verb() -> None:
    for path, node in nodes():
        if isinstance(node, ast.ClassDef):
            assert not {ast.unparse(base).rpartition(".")[2] for base in node.bases} & {"HTTPEndpoint"}, path


def test_s32_processes_talk_over_pipes_that_carry_no_pickle() -> None:
    assert not imported(PORTS)


@pytest.mark.parametrize(("code", "names"), [("import zipfile", UNPACKERS), ("from string import Template", TEMPLATES)])
def test_an_import_is_seen_in_either_form(code: str, names: set[str], tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(code)
    assert imports(tmp_path / "x.py") & names
