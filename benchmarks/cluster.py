"""Several machines as processes on loopback: faults while predictions come in, the rate behind HAProxy, training jobs.

PostgreSQL, an S3 server, two to three services, each with a store of its own, HAProxy with the configuration of
`torchloop haproxy`, and a Ray cluster of three nodes. Nobody repeats a prediction but HAProxy. What this machine lacks
is left out, and the table says so.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import Options, cluster_jobs, database, load, objects, ray_cluster
from benchmarks.balancer import NoHAProxy, binary
from benchmarks.faults import HEAD, PATH, Faults
from benchmarks.postgres import Installed, NoPostgres, Postgres, Standby, installed
from benchmarks.report import Aim, table
from benchmarks.servers import SEVEN
from benchmarks.service_process import NotStarted, running_service
from benchmarks.topology import wait

_BEAT_S = 0.5
_RATIO, _CONNECTIONS = 0.55, 32
_HEAD_S, _OBJECTS_S, _JOBS = 300.0, 60.0, 50  # with --whole
_FEW_JOBS = 6


@dataclass(frozen=True, kw_only=True)
class Database:
    """A PostgreSQL server, its copy, and the URL of a database of both."""

    primary: Postgres
    standby: Standby
    url: str


def main(options: Options) -> str:
    """Return a table of the faults, and one of the other aims."""
    try:
        binary()
        with _database() as rows, TemporaryDirectory() as folder:
            return _measured(options, rows, Path(folder))
    except (NoHAProxy, NoPostgres, NotStarted) as err:
        return f"  skipped: {err}"


@contextmanager
def _database() -> Iterator[Database]:
    """Start a server, and a copy that follows it. Raises NoPostgres."""
    with TemporaryDirectory() as data, TemporaryDirectory() as copy, ExitStack() as stack:
        programs = installed()
        server = Installed(Path(data), programs)
        stack.callback(_stop, server)
        primary = Postgres(Path(data), server)
        url = primary.create_database("cluster")
        standby = Standby(Path(copy), programs, Path(data))
        stack.callback(_stop, standby)
        yield Database(primary=primary, standby=standby, url=f"{url},{copy}&target_session_attrs=read-write")


def _stop(server: Installed) -> None:
    with suppress(NoPostgres):  # it has been stopped
        server.stop()


def _measured(options: Options, rows: Database, folder: Path) -> str:
    """Return both tables. The fail-over comes last, because the databases of the jobs stay behind."""
    missing: list[str] = []
    with ExitStack() as stack:
        s3 = stack.enter_context(objects.s3_process()) if objects.INSTALLED else None
        faults = Faults(stack, folder, rows.url, s3)
        aims = [*_rate(options, faults.port, missing), *_beats(options, missing)]
        _serving(options, faults)
        if s3:
            _without_objects(options, faults, s3)
        else:
            missing.append(
                "object store dead: moto or obstore is not installed (pip install 'moto[server,s3]' obstore)"
            )
        if ray_cluster.INSTALLED:
            aims += _jobs(options, faults, rows.primary.create_database("jobs"), missing)
        else:
            missing.append("Ray head dead, training: Ray is not installed (pip install ray)")
        aims += _fail_over(options, faults, rows)
        aims = [*faults.aims(), *aims]
    return "\n\n".join(
        [
            table(HEAD, faults.rows),
            table(["", "measured", "aim", "met"], [aim.cells() for aim in aims]),
            *(f"  not measured: {words}" for words in missing),
        ]
    )


def _rate(options: Options, port: int, missing: list[str]) -> list[Aim]:
    """Compare two nodes of one web process behind HAProxy with one service of two, in turn."""
    sys.stderr.write("cluster: rate of two nodes\n")
    if not load.is_installed():
        missing.append("rate of two nodes:" + load.MISSING)
        return []
    with running_service({"TORCHLOOP_WEB_PROCESSES": "2"}, own_session=True) as (native, _):
        urls = (native, f"http://127.0.0.1:{port}")
        for url in urls:
            load.send(url, SEVEN, (PATH,), connections=_CONNECTIONS, seconds=1)
        ratios = []
        for _ in range(options.rounds):
            alone, balanced = (
                load.send(url, SEVEN, (PATH,), connections=_CONNECTIONS, seconds=options.seconds).rate for url in urls
            )
            ratios.append(balanced / alone)
    ratios.sort()
    return [
        Aim("two nodes behind HAProxy / native, median", [ratios[len(ratios) // 2]], _RATIO, at_least=True),
        Aim("  the same, all rounds", ratios),
    ]


def _beats(options: Options, missing: list[str]) -> list[Aim]:
    sys.stderr.write("cluster: beats of 100 jobs\n")
    try:
        seen = database.beating(options.seconds)
    except NoPostgres as err:
        missing.append(f"beats of 100 jobs: {err}")
        return []
    return [Aim("100 jobs beating: p99, s", [seen.p99_ms / 1e3], _BEAT_S)]


def _serving(options: Options, faults: Faults) -> None:
    """Add the rows of the services and HAProxy."""
    faults.under_load(f"{options.rounds} promotions", lambda: _repeat(faults.promote, options.rounds))
    faults.under_load("rollback", faults.roll_back)
    faults.under_load("rolling restart of two nodes", faults.restart_all)
    faults.under_load("a third node joins", faults.join)
    faults.under_load("a web process is killed", faults.kill_web_process)
    faults.under_load("the third node leaves", faults.leave)
    faults.under_load("a node is killed (SIGKILL)", faults.kill)
    faults.under_load("it is started again", lambda: faults.replace(1))
    faults.under_load("a node is frozen (SIGSTOP), and wakes up", lambda: faults.freeze(options.seconds))


def _repeat(action: Callable[[], None], times: int) -> None:
    for _ in range(times):
        action()


def _without_objects(options: Options, faults: Faults, s3: objects.S3Process) -> None:
    """Stop the object store; a version of which each node has a copy can be promoted meanwhile."""
    seconds = _OBJECTS_S if options.whole else 2.0 * options.seconds

    def away() -> None:
        s3.do("stop")
        try:
            faults.promote()
            time.sleep(seconds)
        finally:
            s3.do("start")

    faults.under_load(f"object store dead for {seconds:g} s, and a promotion", away)


def _jobs(options: Options, faults: Faults, url: str, missing: list[str]) -> list[Aim]:
    """Run jobs on a Ray cluster; also without its head, while predictions come in."""
    aims: list[Aim] = []
    rounds = options.rounds if options.whole else 1
    count = _JOBS if options.whole else _FEW_JOBS
    with cluster_jobs.trial(url) as running:
        parts: dict[str, Callable[[], list[Aim]]] = {
            "Ray head dead": lambda: _without_head(options, faults, running),
            "training node killed": lambda: cluster_jobs.taken_up(running, "kill", rounds),
            "training node frozen": lambda: cluster_jobs.taken_up(running, "freeze", rounds),
            "dispatcher killed": lambda: [cluster_jobs.dispatcher_killed(running, options.seconds)],
            "jobs and random kills": lambda: cluster_jobs.killed_at_random(running, count),
        }
        for what, part in parts.items():
            try:
                found = part()
            except cluster_jobs.NeverCame as err:
                found = []
                missing.append(f"{what}: {err}")
            aims += found
            sys.stderr.writelines(f"cluster: {', '.join(aim.cells())}\n" for aim in found)
    return aims


def _without_head(options: Options, faults: Faults, running: cluster_jobs.Trial) -> list[Aim]:
    """Kill the head for a while. Returns how many attempts the job at work needed, and how soon the next one began."""
    seconds = _HEAD_S if options.whole else 4.0 * options.seconds
    job = running.begun()

    def away() -> None:
        running.nodes.do("lose-head")
        time.sleep(seconds)

    try:
        faults.under_load(f"Ray head dead for {seconds:g} s", away)
        reached = cluster_jobs.epoch(running.jobs.get(job.id))
        now = running.when(job, lambda now: cluster_jobs.epoch(now) > reached)
    finally:
        running.nodes.do("return-head")
    began = time.monotonic()
    running.end(running.begun())
    back_s = time.monotonic() - began
    running.end(job)
    return [
        Aim("Ray head dead: attempts of the running job", [float(now.attempt)], 1),
        Aim("Ray head back: next job placed, and ended, s", [back_s]),
    ]


def _fail_over(options: Options, faults: Faults, rows: Database) -> list[Aim]:
    """Have the primary refuse writes, then stop it and promote its copy. Returns how soon a promotion succeeds."""
    back_s = 0.0

    def promoted() -> bool:
        faults.promote(counted=False)
        return True

    def fail_over() -> None:
        nonlocal back_s
        rows.primary.refuse_writes()
        time.sleep(options.seconds)
        rows.primary.stop()
        time.sleep(options.seconds)
        rows.standby.promote()
        began = time.monotonic()
        wait(promoted, "promotion after the fail-over")
        back_s = time.monotonic() - began

    faults.under_load("PostgreSQL read-only, stopped, then its copy", fail_over)
    return [Aim("after the fail-over: a promotion succeeds, s", [back_s], 10)]
