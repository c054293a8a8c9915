"""Digest of the code that a network comes from: a cache key for its exports. Imports nothing but reads the sources."""

import ast
import hashlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from models.spec import ByName, ModelSpec

_EXPORTER = ("models.checkpoints.onnx_export", "models.checkpoints.state_dict")
_DECODERS = ("models.entries", "models.coding")
_LIBRARIES = ("torch", "onnx", "onnxruntime")
_INSTALLED = {"site-packages", "dist-packages"}
_OURS = {"models", "training"}  # installed, they may also have modules in a project folder, which have no version
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")  # module:Class, as in by_name
_IMPORTERS = {"import_module", "__import__"}


@dataclass(frozen=True, slots=True)
class _Source:
    """The result of reading one file: the digest of its content, and the names of the modules that it may import."""

    sha256: str
    imports: frozenset[str]


_TRIES = 5
_PARSING = threading.Lock()
_read: dict[str, tuple[tuple[int, int], _Source]] = {}  # by path, with time and size of the file


def code_digest(model: str, spec: ModelSpec) -> str:
    """Return the digest of the sources that the network of a model and its export depend on.

    These are the modules of the spec and the network and, recursively, all that they import: the files of modules in
    folders, the versions of installed distributions. References such as "module:Class" in the sources count as imports.
    """
    named = {f"models.{model}", *_modules_of(spec.network), *_modules_of(spec.preprocess)}
    parts = [f"{name} {_installed(name)}" for name in _LIBRARIES]
    sources, installed = _walk({*_EXPORTER, *named})
    parts += [f"{name} {digest}" for name, digest in (sources | installed).items()]
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def decoding_digest(model: str, spec: ModelSpec) -> str:
    """Return the digest of the sources that decode the rows of a model's data: a cache key of decoded data."""
    named = {f"models.{model}", *_modules_of(spec.preprocess), *_modules_of(spec.picture), *_modules_of(spec.encode)}
    sources, installed = _walk({*_DECODERS, *named} - {"builtins"})
    parts = [f"{name} {digest}" for name, digest in (sources | installed).items()]
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def cache_key(model: str, spec: ModelSpec) -> str:
    """Return the name of the folder of samples that the current code has decoded."""
    return decoding_digest(model, spec)[:24]


def network_digest(spec: ModelSpec) -> str:
    """Return the digest of the sources of a network alone: the files of its modules and of those that they import.

    The versions of installed distributions do not count: it is the same on every machine.
    """
    sources, _ = _walk(set(_modules_of(spec.network)))
    return hashlib.sha256(
        "\n".join(sorted(f"{name} {digest}" for name, digest in sources.items())).encode()
    ).hexdigest()


def missing_class(network: Any) -> str:
    """Say why the class that `by_name` names does not exist, from the sources alone; empty if it may exist."""
    match network:
        case partial(func=inner):
            return missing_class(inner)
        case ByName(module=module, name=name, place=place):
            said = f'{place}: by_name("{module}:{name}"): '
            spec = _find(module, {}) if module else None
            if spec is None:
                return f"{said}there is no module {module!r}"
            if not spec.origin or not spec.origin.endswith(".py"):
                return ""
            names, classes = _defined(Path(spec.origin).read_bytes())
            if names is None or name in names:
                return ""
            return f"{said}there is no {name} in {module}; it has {', '.join(sorted(classes)) or 'no class'}"
    return ""


def _defined(content: bytes) -> tuple[set[str] | None, set[str]]:
    """Return the names that a source may define and of its classes. None: it may define any."""
    try:
        nodes = list(ast.walk(_parsed(content)))
    except (SyntaxError, ValueError):
        return None, set()
    classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    names = classes | {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    names |= {node.id for node in nodes if isinstance(node, ast.Name)}
    aliases = [alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    names |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
    return None if names & {"*", "__getattr__", "globals", "setattr"} else names, classes


def _modules_of(function: Any) -> Iterator[str]:
    """Yield the modules of a function or class, also if it is named by `by_name` or wrapped by `partial`."""
    match function:
        case ByName(module=module):
            yield module
        case partial(func=inner, args=args, keywords=keywords):
            for part in (inner, *args, *keywords.values()):
                yield from _modules_of(part)
        case _:
            module = getattr(function, "__module__", None) or type(function).__module__
            if isinstance(module, str):
                yield module


def _walk(names: set[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return module -> digest, and distribution -> version, of these modules and all that they import."""
    found: dict[str, str] = {}
    installed: dict[str, str] = {}
    specs: dict[str, ModuleSpec | None] = {}
    seen: set[str] = set()
    rest = sorted(names)
    while rest:
        name = rest.pop()
        top, parent = name.partition(".")[0], name.rpartition(".")[0]
        if name in seen or (top in installed and top not in _OURS) or top in sys.stdlib_module_names:
            continue
        seen.add(name)
        if _is_installed_namespace(_find(top, specs)):  # parts of it cannot be found without importing the others
            installed[top] = _installed(top)
            continue
        spec = _find(name, specs)
        rest += [parent] if parent else []
        if spec is None or not spec.origin or not Path(spec.origin).is_file():
            continue  # an attribute of a module, a folder without __init__.py, or not installed
        if _INSTALLED & set(Path(spec.origin).parts) and (version_of := _installed(top)):
            installed[top] = version_of
            continue
        source = _source(spec.origin, name if spec.submodule_search_locations is not None else parent)
        found[name] = source.sha256
        rest += source.imports
    return found, installed


def _is_installed_namespace(spec: ModuleSpec | None) -> bool:
    """Whether a package is a namespace (without __init__.py) that distributions share, not a folder of the user's."""
    folders = (spec.submodule_search_locations if spec and spec.origin is None else None) or ()
    return any(_INSTALLED & set(Path(folder).parts) for folder in folders)


def _find(name: str, found: dict[str, ModuleSpec | None]) -> ModuleSpec | None:
    """Find a module as an import would, without importing it or the packages that it is in.

    `found` caches the results, None for names that are not modules.
    """
    if name not in found:
        parent = name.rpartition(".")[0]
        package = _find(parent, found) if parent else None
        folders = package.submodule_search_locations if package else None
        folders = getattr(sys.modules.get(parent), "__path__", folders)  # a project folder may have been added
        found[name] = None
        if not parent or folders is not None:
            specs = (finder.find_spec(name, folders) for finder in sys.meta_path)
            found[name] = next((spec for spec in specs if spec is not None), None)
    return found[name]


@cache
def _installed(top: str) -> str:
    """Return the version of the distribution that a package is installed from; empty for a folder that was copied."""
    try:
        return version(top)  # the fast way, for packages named like their distribution
    except PackageNotFoundError:
        return " ".join(f"{name} {version(name)}" for name in sorted(set(_distributions().get(top, ()))))


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _source(origin: str, package: str) -> _Source:
    """Read a file, or return the cached result if the file has not changed since."""
    status = os.stat(origin)  # noqa: PTH116 - called for each file of a network
    stamp = (status.st_mtime_ns, status.st_size)
    if origin not in _read or _read[origin][0] != stamp:
        content = Path(origin).read_bytes()
        imports = frozenset(_imports(content, package)) if origin.endswith(".py") else frozenset[str]()
        _read[origin] = stamp, _Source(hashlib.sha256(content).hexdigest(), imports)
    return _read[origin][1]


def _imports(content: bytes, package: str) -> Iterator[str]:
    """Yield the modules that a source may import, anywhere in it; `package` is what relative imports start from."""
    try:
        tree = _parsed(content)
    except (SyntaxError, ValueError):  # it cannot be imported either
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = _base(package, level, module)
                yield base
                yield from (f"{base}.{alias.name}" for alias in names if base and alias.name != "*")
            case ast.Call(
                func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(value=str(name)), *_]
            ):
                if called in _IMPORTERS:
                    yield f"{package}{name}" if name.startswith(".") else name
            case ast.Constant(value=str(text)) if _REFERENCE.fullmatch(text):
                yield text.partition(":")[0]


def _parsed(content: bytes) -> ast.Module:
    """Parse a source. Raises SyntaxError and ValueError.

    One thread at a time: CPython 3.11 counts the depth of the syntax tree for all threads together, and raises
    SystemError if two of them parse at once (https://github.com/python/cpython/issues/106905). Libraries parse as well,
    so that it is tried again.
    """
    with _PARSING:
        for _ in range(_TRIES):
            with suppress(SystemError):
                return ast.parse(content)
        return ast.parse(content)


def _base(package: str, level: int, module: str | None) -> str:
    """Return the module of `from ..module import name` in a package."""
    if level == 0:
        return module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - level + 1], *([module] if module else [])])
