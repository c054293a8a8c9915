"""Imports run downward only. Kept by reading the source, and by looking into fresh interpreters."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.each import each_holds
from tests.fakes import ROOT
from tests.sources import FILES, PACKAGES, called, imports

OTHERS = [path for folder in ("benchmarks", "examples", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
SOURCES = [*FILES, *OTHERS]
TESTS = sorted((ROOT / "tests").glob("*.py"))
MAY_IMPORT = {"models": {"models"}, "training": {"models", "training"}, "service": {"models", "service"}}
# Folders of service/ -> the folders that they may import besides themselves and the modules at the ground.
GROUND = {"credentials", "settings", "logs", "errors", "media_types"}
NOT_AT_IMPORT = {"obstore", "ray", "psycopg", "alembic"}
NOT_OF_A_WORKER = {
    *("obstore", "ray", "torch", "training", "fastapi"),
    *("service.inference", "service.web", "service.api"),
}
ROOTS = {
    "__main__", "app", "attempt", "check", "cluster", "command", "dataset", "dispatch", "group", "parts", "register",
    "serve", "worker",
}  # fmt: skip
LAYERS = {
    "api": {"jobs", "delivery", "data", "inference", "web", "execution", "store", "telemetry"},
    "upkeep": {"jobs", "delivery", "data", "store"},
    "jobs": {"delivery", "data", "execution", "store"},
    "delivery": {"inference", "data", "execution", "store", "telemetry"},
    "inference": {"execution", "telemetry"},
    "web": set(),
    "data": {"store", "telemetry"},
    "execution": set(),
    "store": set(),
    "telemetry": set(),
    "client": set(),
}


def _imports_nothing_from_above(path: Path) -> None:
    ours = {name.split(".")[0] for name in imports(path)} & {*PACKAGES, "tests", "benchmarks"}
    assert ours <= MAY_IMPORT[path.relative_to(ROOT).parts[0]]


def test_no_package_imports_from_above() -> None:
    each_holds(_imports_nothing_from_above, FILES)


def test_one_module_imports_the_library_of_object_stores() -> None:
    found = [path for path in FILES if any(name.split(".")[0] == "obstore" for name in imports(path))]
    assert found == [ROOT / "models/checkpoints/objects.py"]


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.name)
def test_benchmarks_import_no_tests(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] == "tests"}


def _room(module: str) -> str:
    """`service.web.server` -> `web`."""
    return f"{module}.".split(".")[1]


def _imports_downward(path: Path) -> None:
    room = _room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    used = {_room(name) for name in imports(path) if name.startswith("service.")} - {room}
    if room in GROUND:
        assert not used - GROUND
    elif room == "client":
        assert not used
        assert not {name for name in imports(path) if name.split(".")[0] == "models"}
    elif room not in {*ROOTS, "__init__"}:
        assert used <= LAYERS[room] | GROUND


def test_folders_of_the_service_import_downward_only() -> None:
    each_holds(_imports_downward, sorted((ROOT / "service").rglob("*.py")))


def _prefixes(module: str) -> list[str]:
    """`a.b.c` -> a, a.b, a.b.c."""
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def test_there_are_no_circles() -> None:
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    graph = {
        name: {other for found in imports(path) for other in _prefixes(found)} & names.keys() - {name}
        for name, path in names.items()
    }
    while leaves := {name for name, targets in graph.items() if not targets & graph.keys()}:
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    assert not graph, f"circle among {sorted(graph)}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("service.settings", {"sqlalchemy", "service.logs", "models", "numpy"}),
        ("service.logs", {"pydantic", "sqlalchemy", "service.settings"}),
        ("service.store.database", {"fastapi", "service.logs", "service.web", "psycopg", "alembic"}),
        ("service.client.command", {"httpx", "rich"}),
        ("service.command", {"pydantic", "importlib.metadata", "httpx"}),
        ("models.catalog", {"torch", "training", "service", "fastapi", "matplotlib", "sklearn", "scipy"}),
        (
            "service.app",
            NOT_AT_IMPORT
            | {"torch", "onnx", "training", "matplotlib", "sklearn", "scipy", "httpx", "rich", "pygments"},
        ),
        ("service.__main__", {"obstore", "ray", "torch", "fastapi", "onnxruntime"}),
        ("training.recipe", {"service", "fastapi"}),
        ("service.worker", NOT_OF_A_WORKER),
        ("service.attempt", NOT_OF_A_WORKER),
        ("service.cluster", NOT_OF_A_WORKER),
        ("service.group", NOT_OF_A_WORKER),
        ("service.upkeep.prune", NOT_OF_A_WORKER),
        ("service.upkeep.fsck", NOT_OF_A_WORKER),
        ("service.inference.batcher", {"torch._dynamo", "fastapi", "training"}),
        (
            "service.client",
            {"obstore", "ray", "torch", "fastapi", "starlette", "pydantic", "sqlalchemy", "numpy", "PIL"},
        ),
        ("service.client.__main__", {"torch", "fastapi", "starlette", "sqlalchemy", "numpy", "PIL", "training"}),
    ],
)
def test_a_fresh_interpreter_loads_only_what_it_should(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not absent & set(loaded.split())


@pytest.mark.slow
def test_the_shipped_models_are_served_without_torch(tmp_path: Path) -> None:
    """A started web process, asked for a prediction, has not imported it: what takes torch a child has done."""
    code = (
        "import sys; from pathlib import Path; from starlette.testclient import TestClient\n"
        "from service.app import create_app; from service.settings import Settings\n"
        "with TestClient(create_app(Settings(store=Path(sys.argv[1]))), 'http://localhost') as client:\n"
        "    for model in client.get('/models').json()['models']:\n"
        "        assert model['backend'] == 'onnxruntime'\n"
        "        assert client.post(f\"/predict/{model['name']}\", json=model['example']).status_code == 200\n"
        "print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "onnx", "scipy"} & set(loaded.split())


@cache
def _words_about(path: Path) -> tuple[str, ...]:
    """What a file does that it must not do, one rule's name at the start of each; the file is parsed once for all."""
    text = path.read_text()
    found = [f"long: {len(text.splitlines())} lines"] if len(text.splitlines()) > 400 else []
    for node in ast.walk(ast.parse(text)):
        found += [*_too_long(node), *_patches_something_private(node), *_asserts_wall_time(node)]
    return tuple(found)


def _has_no(fault: str) -> Callable[[Path], None]:
    """A check that a file has no fault whose name is that."""

    def check(path: Path) -> None:
        found = [words for words in _words_about(path) if words.startswith(f"{fault}:")]
        assert not found, "; ".join(found)

    return check


def _too_long(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        assert node.end_lineno is not None
        if node.end_lineno - node.lineno >= 60:
            yield f"long: {node.name}"


def test_files_and_functions_stay_short() -> None:
    each_holds(_has_no("long"), SOURCES)


def _is_private(node: ast.expr) -> bool:
    """Whether a string names a private attribute: "_x", or "module._x"."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    name = node.value.rpartition(".")[2]
    return name.startswith("_") and not name.startswith("__")


def _patches_something_private(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
        if any(map(_is_private, node.args[:2])):
            yield f"private: line {node.lineno} patches a private name"
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            of_itself = (
                isinstance(target, ast.Attribute)
                and isinstance(target.value, ast.Name)
                and target.value.id in {"self", "cls"}
            )
            if isinstance(target, ast.Attribute) and not of_itself and _is_private(ast.Constant(target.attr)):
                yield f"private: line {node.lineno} assigns to a private name"


def test_no_test_patches_a_private_name() -> None:
    each_holds(_has_no("private"), TESTS)


def _reads_a_clock(node: ast.AST) -> bool:
    return called(node) in {"time.monotonic", "time.perf_counter", "time.time"}


def _asserts_wall_time(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Assert):
        reckoned = [one for one in ast.walk(node) if isinstance(one, ast.BinOp | ast.Compare)]
        if any(any(map(_reads_a_clock, ast.iter_child_nodes(one))) for one in reckoned):
            yield f"clock: line {node.lineno} asserts wall time: take a clock as an argument, or wait for an event"


def test_no_test_asserts_wall_time() -> None:
    """Of a loaded machine it says nothing. Benchmarks measure it."""
    each_holds(_has_no("clock"), [path for path in TESTS if path.name != "waiting.py"])
