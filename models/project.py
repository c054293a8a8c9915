"""Project folder: a user's own models and recipes, outside of this project's source.

It holds models/*.py, training/*.py, pretrained/*.pt and requirements.txt, of which each may be missing. Its models/ and
training/ become part of the packages `models` and `training` (their `__path__`): `models.NAME` is one of its files,
and its files import each other as `from models.layers import Block` or `from .layers import Block`. A file may not have
the name of one of our modules, so that neither replaces the other.
"""

import argparse
import importlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

_ROOT = Path(__file__).parents[1]  # the folder that contains the packages
_VARIABLE, _BUILTIN = "TORCHLOOP_PROJECT", "TORCHLOOP_BUILTIN"
_OPTION = "--project"
_PACKAGES = ("models", "training")
_REQUIREMENTS = "requirements.txt"
_OF_A_MODEL = re.compile(rb"^(?:SPEC|RECIPE)\b", re.MULTILINE)


class ProjectError(Exception):
    """Error: the project folder cannot be used. The message names the fault and the way out."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project folder, None if there is none, and whether the built-in models are offered as well."""

    folder: Path | None = None
    builtin: bool = True

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that give a child process this project."""
        folder = "" if self.folder is None else str(self.folder.absolute())
        return {_VARIABLE: folder, _BUILTIN: "on" if self.builtin else "off"}

    def pretrained(self, shipped: Path) -> tuple[Path, ...]:
        """Return the folders with first checkpoints, the project's before `shipped`."""
        own = () if self.folder is None else (self.folder / "pretrained",)
        return (*own, shipped) if self.builtin else own

    def names(self, package: str) -> set[str]:
        """Return the names of the project's own files in `models` or `training`."""
        return set() if self.folder is None else {path.stem for path in (self.folder / package).glob("*.py")}

    def enter(self) -> None:
        """Check the folder and its requirements, and make its models importable. Raises ProjectError."""
        if self.folder is None and not self.builtin:
            raise ProjectError(f"{_BUILTIN}=off leaves no models: name the folder of your own in {_VARIABLE}")
        if self.folder is not None:
            if not any((self.folder / package).is_dir() for package in _PACKAGES):
                raise ProjectError(
                    f"{_VARIABLE}: {self.folder} is no project folder: name a folder that holds models/ and training/"
                )
            for ours in (_ROOT / package for package in _PACKAGES):
                if theirs := self._own(ours.name, ours):
                    self._refuse_clashes(ours, theirs)
            _require_installed(self.folder / _REQUIREMENTS)
        self.mount("models")

    def mount(self, package: str) -> list[Path]:
        """Add the project's folder to the package's `__path__`, and return the folders whose modules are offered.

        Without the built-in models the project's folder comes first, because it may reuse their names. Raises
        ProjectError if one of its files has the name of a module of this package.
        """
        module = importlib.import_module(package)
        assert module.__file__ is not None
        ours = Path(module.__file__).parent
        theirs = self._own(package, ours)
        if theirs is None:
            module.__path__ = [str(ours)]
            return [ours] if self.builtin or self._is_source(ours) else []
        self._refuse_clashes(ours, theirs)
        module.__path__ = [str(folder) for folder in ((ours, theirs) if self.builtin else (theirs, ours))]
        importlib.invalidate_caches()
        return [ours, theirs] if self.builtin else [theirs]

    def _own(self, package: str, ours: Path) -> Path | None:
        if self.folder is None or self._is_source(ours):
            return None
        theirs = self.folder / package
        return theirs if theirs.is_dir() else None

    def _is_source(self, ours: Path) -> bool:
        """Return whether the project folder is the folder of our own packages, as in a checkout."""
        return self.folder is not None and self.folder.resolve() == ours.parent.resolve()

    def _refuse_clashes(self, ours: Path, theirs: Path) -> None:
        builtin = {path.stem for path in ours.glob("*.py") if _OF_A_MODEL.search(path.read_bytes())}
        clashes = _modules(theirs) & _modules(ours)
        for name in sorted(clashes - builtin):
            raise ProjectError(
                f"{theirs.name}/{name} in the project folder has the name of a module of Torchloop, which it must not "
                "replace: rename it"
            )
        for name in sorted(clashes) if self.builtin else ():
            raise ProjectError(
                f"{theirs.name}/{name}.py in the project folder has the name of a built-in model: rename it, or leave "
                f"the built-in models out with {_BUILTIN}=off"
            )


def of(environ: Mapping[str, str]) -> Project:
    """Return the project that the environment names. Raises ProjectError for a bad value."""
    folder, builtin = environ.get(_VARIABLE, ""), environ.get(_BUILTIN, "")
    if builtin.strip() and builtin not in {"on", "off"}:
        raise ProjectError(f"{_BUILTIN}={builtin}: write on or off")
    return Project(Path(folder).expanduser().absolute() if folder.strip() else None, builtin != "off")


def use(folder: Path) -> None:
    """Enter a project folder in this process and its children, as TORCHLOOP_PROJECT does: for tests and notebooks.

    Raises ProjectError.
    """
    os.environ[_VARIABLE] = str(folder.absolute())
    of(os.environ).enter()


def take_option(words: Sequence[str]) -> list[str]:
    """Take `--project DIR` out of a command line, and put it into the environment. Returns the other words.

    Raises ProjectError if DIR is missing.
    """
    rest: list[str] = []
    given = iter(words)
    for word in given:
        if word != _OPTION and not word.startswith(f"{_OPTION}="):
            rest.append(word)
            continue
        folder = word.partition("=")[2] if "=" in word else next(given, "")
        if not folder:
            raise ProjectError(f"{_OPTION} needs a folder: {_OPTION} DIR")
        os.environ[_VARIABLE] = str(Path(folder).expanduser().absolute())
    return rest


def add_option(parser: argparse.ArgumentParser) -> None:
    """Describe `--project` in a command's --help. `take_option` reads it before the parser sees the words."""
    parser.add_argument(_OPTION, metavar="DIR", help=f"project folder with your own models ({_VARIABLE})")


def modules_of_ours(package: str) -> set[str]:
    """Return the names in `models` or `training` that a project's file cannot have."""
    return _modules(_ROOT / package)


def of_any_folder(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a child process that finds our packages from whatever folder it is started in.

    Otherwise `python -m` looks into the current folder first, which may be a project folder with its own models/.
    """
    paths = [str(_ROOT), *filter(None, [environ.get("PYTHONPATH")])]
    return {**environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}


def _modules(folder: Path) -> set[str]:
    """Return the names of the modules and packages in a folder."""
    paths = [path for path in folder.iterdir() if not path.name.startswith((".", "__"))]
    packages = {path.name for path in paths if path.is_dir() and any(path.rglob("*.py"))}
    return packages | {path.stem for path in paths if path.suffix == ".py"}


def _require_installed(requirements: Path) -> None:
    """Raise ProjectError with the requirements that are not installed. Nothing is installed."""
    faults = list(_missing(requirements)) if requirements.exists() else []
    if faults:
        raise ProjectError(
            f"{_REQUIREMENTS} of the project: {'; '.join(faults)}. Install with: pip install -r {requirements}"
        )


def _missing(file: Path) -> Iterator[str]:
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415 - for projects only

    try:
        lines = file.read_text().replace("\\\n", " ").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise ProjectError(f"{file.name} of the project cannot be read: save it as UTF-8 text") from err
    for line in (re.split(r"(?:^|\s)#|\s--", line)[0].strip() for line in lines):
        if included := re.fullmatch(r"(?:-r|--requirement)[\s=]*(\S+)", line):
            yield from _missing(file.parent / included[1])
        elif line and not line.startswith("-") and not re.match(r"[.\w+]*[:/\\]", line):  # options, paths and URLs
            try:
                requirement = Requirement(line)
            except InvalidRequirement as err:
                raise ProjectError(f"{file.name} of the project: {line!r} is no requirement: correct it") from err
            if requirement.marker is None or requirement.marker.evaluate():
                yield from _unmet(requirement.name, requirement.specifier)


def _unmet(name: str, wanted: "SpecifierSet") -> Iterator[str]:
    from importlib import metadata  # noqa: PLC0415 - half of the start-up time of `torchloop`

    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        yield f"{name} is not installed"
        return
    if not wanted.contains(installed, prereleases=True):
        yield f"{name} {installed} is installed, {wanted} is needed"
