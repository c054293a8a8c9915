"""torchloop prune: remove versions, jobs and files that the rules do not keep, or list them."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from models.catalog import specs
from service.settings import PREFIX, OptionParser, Settings
from service.store.database import Store
from service.upkeep.opened import amount, run
from service.upkeep.pruner import Pruner
from service.upkeep.rules import Named, Pruned, Rules

_DESCRIPTION = (
    f"Remove unpromoted versions beyond the newest {PREFIX}KEEP_VERSIONS of each model, jobs that ended more than "
    f"{PREFIX}KEEP_JOBS_DAYS days ago, and files that nothing needs: those of removed versions and jobs, exports of "
    "other code, samples of datasets that other code has decoded, originals of no dataset version, resume points of "
    "finished jobs, abandoned uploads and temporary files. By default neither is set, and every version and job stays. "
    "A dataset version stays until it is erased. A version that is live, that rollbacks could make live, or that an "
    "open trial compares always stays; the evidence of trials goes as jobs do. The service and its workers may run "
    "meanwhile. Use the settings of the service."
)


def main(words: Sequence[str] | None = None, *, prog: str = "torchloop prune") -> int:
    """Run the command. Returns the exit status: 1 if a file cannot be removed, 2 if it could not begin or go on."""
    parser = OptionParser(
        prog=prog,
        description=_DESCRIPTION,
        allow_abbrev=False,
    )
    parser.add_argument("--dry-run", action="store_true", help="remove nothing, and list what would be removed")
    parser.add_argument(
        "--orphans",
        action="store_true",
        help="also remove weights, artifacts and files of datasets, older than a day, that belong to no version of "
        "this database, and files of jobs that it does not know; look at --dry-run first",
    )
    return run(parser, words, _prune)


def _prune(store: Store, settings: Settings, options: argparse.Namespace) -> int:
    rules = Rules(settings.keep_versions, settings.keep_jobs_days, orphans=options.orphans)
    pruner = Pruner(store, specs(), rules, time.time())
    done = pruner.plan() if options.dry_run else pruner.prune()
    if options.json:
        sys.stdout.write(f"{json.dumps(_as_json(done, dry_run=options.dry_run))}\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(done, rules, dry_run=options.dry_run))
    return 1 if done.failed else 0


def _as_json(done: Pruned, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "versions": [{"model": model, "version": version} for model, version in done.versions],
        "jobs": done.jobs,
        **{name: [asdict(file) for file in getattr(done, name)] for name in ("files", "left", "failed")},
        "bytes": done.bytes,
    }


def _lines(done: Pruned, rules: Rules, *, dry_run: bool) -> Iterator[str]:
    verb = "would remove" if dry_run else "removed"
    yield from (f"{verb} version {version} of {model}" for model, version in done.versions)
    yield from (f"{verb} job {job_id}" for job_id in done.jobs)
    yield from (f"{verb} {_told(file)}" for file in done.files)
    yield from (f"left {_told(file)}" for file in done.left)
    yield from (f"failed: {_told(file)}" for file in done.failed)
    counts = [(len(done.versions), "version"), (len(done.jobs), "job"), (len(done.files), "file")]
    yield f"{verb} {', '.join(amount(count, noun) for count, noun in counts)}: {amount(done.bytes, 'byte')}"
    unset = [
        f"{PREFIX}{name.upper()}"
        for name, value in (("keep_versions", rules.keep_versions), ("keep_jobs_days", rules.keep_jobs_days))
        if value is None
    ]
    if unset:
        yield f"not set: {' and '.join(unset)}"


def _told(file: Named) -> str:
    return f"{file.path}, {amount(file.bytes, 'byte')}: {file.why}"
