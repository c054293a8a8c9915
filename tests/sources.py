"""Source files and their imports, read without running them."""

import ast
from functools import cache
from pathlib import Path

from tests.fakes import ROOT

PACKAGES = ("models", "training", "service")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of the syntax tree of a file."""
    return tuple(ast.walk(ast.parse(path.read_text())))


def called(node: ast.AST) -> str:
    """The source of what a call calls: `open`, `torch.load`. Empty for other nodes."""
    if not isinstance(node, ast.Call):
        return ""
    names: list[str] = []
    function = node.func
    while isinstance(function, ast.Attribute):
        names.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        return ast.unparse(node.func)
    return ".".join([function.id, *reversed(names)])


@cache
def imports(path: Path) -> frozenset[str]:
    """The modules that a file imports, in full."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)
