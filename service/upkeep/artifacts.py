"""torchloop artifacts copy FROM TO: copy the files of a store between a folder and an object store."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from models.checkpoints.copies import FOLDERS, PARTS, Copies
from models.checkpoints.files import unwritable
from models.checkpoints.objects import Objects, ObjectsRefused
from models.checkpoints.storage import Storage
from models.errors import CheckpointError, ObjectsUnavailable
from service.settings import OptionParser, check_artifacts, refuse
from service.upkeep.opened import amount

_DESCRIPTION = (
    "Copy checkpoints, artifacts, exports, datasets, plots and resume points from a store folder to an object store, "
    "back, or between object stores. FROM and TO are folders, such as that of TORCHLOOP_STORE, or URLs as in "
    "TORCHLOOP_ARTIFACTS. Nothing is removed, what is there already is left out, and a copy that was interrupted can "
    "be begun again. The database is not copied. If the service runs meanwhile, copy once more after it has stopped."
)
_WRONG = 2
_NO_BOUND = 2**62  # of a folder that has the files for good
Step = tuple[str, Callable[[], bool]]  # a file's name, and the function that copies it: False if it was there


@dataclass(slots=True)
class Copied:
    """How many files were copied and how many were there already, and the faults of others."""

    copied: int = 0
    present: int = 0
    faults: list[str] = field(default_factory=list)


def main(words: Sequence[str] | None = None, *, prog: str = "torchloop artifacts") -> int:
    """Run the command. Returns the exit status: 1 if a file could not be copied, 2 if it could not begin or go on."""
    parser = OptionParser(prog=prog, description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("action", choices=["copy"], help="what to do")
    parser.add_argument("source", metavar="FROM", type=_place, help="folder or URL that has the files")
    parser.add_argument("target", metavar="TO", type=_place, help="folder or URL that gets them")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(words)
    try:
        done = copied(steps(options.source, options.target))
        if done == Copied():
            raise ObjectsRefused(f"{options.source} has no files of a store: check the name")
    except ObjectsRefused as err:
        return refuse(str(err), _WRONG)
    except ObjectsUnavailable as err:
        return refuse(f"{err} ({err.why})", _WRONG)
    if options.json:
        sys.stdout.write(f"{json.dumps(asdict(done))}\n")
    else:
        sys.stdout.writelines(f"failed: {fault}\n" for fault in done.faults)
        sys.stdout.write(f"copied {amount(done.copied, 'file')}; {amount(done.present, 'file')} there already\n")
    return 1 if done.faults else 0


def copied(steps: Iterable[Step]) -> Copied:
    """Take all steps. Raises ObjectsUnavailable."""
    done = Copied()
    for name, step in steps:
        try:
            if step():
                done.copied += 1
            else:
                done.present += 1
        except CheckpointError as err:
            done.faults.append(str(err))
        except OSError as err:
            done.faults.append(f"{name}: {unwritable(err)}")
    return done


def steps(source: str, target: str) -> Iterator[Step]:
    """Yield the files to copy. Raises ObjectsRefused, also if both are folders, or one is in the other."""
    match "://" in source, "://" in target:
        case False, False:
            raise ObjectsRefused("both are folders: copy them with cp -a")
        case True, True if f"{source}/".startswith(f"{target}/") or f"{target}/".startswith(f"{source}/"):
            raise ObjectsRefused("FROM and TO are the same place, or one is in the other: name another one")
        case False, True:
            yield from _given(Path(source), _opened(target))
        case True, False:
            yield from _taken(_opened(source), Path(target))
        case _:
            yield from _passed_on(_opened(source), _opened(target))


def _opened(url: str) -> Objects:
    objects = Objects.at(url)
    objects.probe()
    return objects


def _given(folder: Path, objects: Objects) -> Iterator[Step]:
    """Yield the files of a folder, for an object store."""
    storage, copies = Storage(folder), Copies(folder, objects, _NO_BOUND)
    for path in storage.constant_files():
        yield copies.name(path), partial(copies.give, path)
    for path in storage.changing_files():
        yield copies.name(path), partial(copies.give_state, path)
    for path in storage.dataset_folders():
        yield copies.name(path), partial(copies.give_folder, path)


def _taken(objects: Objects, folder: Path) -> Iterator[Step]:
    """Yield the files of an object store, for a folder."""
    copies = Copies(folder, objects, _NO_BOUND)
    newest: dict[str, str] = {}  # key by name
    whole = set()
    for key in (found.key for top in FOLDERS for found in objects.below(top)):
        name, _, last = key.rpartition("/")
        if last == PARTS:
            whole.add(name)
        else:
            newest[name] = key
    for name in sorted(whole):
        yield name, partial(copies.take_folder, folder / name)
    for name, key in newest.items():
        if name.rpartition("/")[0] not in whole:
            yield name, partial(copies.take, folder / name, key)


def _passed_on(source: Objects, target: Objects) -> Iterator[Step]:
    """Yield the objects of a store, for another one. Those that say what belongs together come last."""
    keys = [found.key for top in FOLDERS for found in source.below(top)]
    with TemporaryDirectory(prefix="torchloop-") as folder:
        copies = Copies(Path(folder), source, _NO_BOUND)

        def pass_on(key: str) -> bool:
            if target.exists(key):
                return False
            if key.endswith(f"/{PARTS}"):
                return target.put(key, source.content(key))
            path = Path(folder) / "passing"
            copies.take(path, key)
            return target.put(key, path)

        for key in sorted(keys, key=lambda key: key.endswith(f"/{PARTS}")):
            yield key, partial(pass_on, key)


def _place(word: str) -> str:
    try:
        return check_artifacts(word)
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from err


if __name__ == "__main__":
    sys.exit(main())
