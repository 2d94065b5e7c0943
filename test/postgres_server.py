# SPDX-License-Identifier: Apache-2.0
"""A real PostgreSQL server with pgvector, in a folder of its own, for tests and benchmarks.

The programs are those of the package pgserver. The package's own code is not used: as root it adds
a user to the machine, and lets everybody into the folders above.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType

NOBODY = 65534  # PostgreSQL refuses to run as root

FAST = ("fsync=off", "full_page_writes=off", "max_wal_size=64MB", "wal_recycle=off")
"""Settings for tests: what is written survives the end of the server, not that of the machine."""


def missing() -> str:
    """Why there can be no server here; "" if there can."""
    for package in ("pgserver", "psycopg"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed; pgserver exists for x86_64 and Python up to 3.12"
    return ""


class PostgresServer:
    """Runs until `close`; listens at a Unix socket, and at a port of this machine.

    Args:
        settings: such as "fsync=off".
    """

    def __init__(self, *settings: str) -> None:
        package = importlib.util.find_spec("pgserver")
        assert package is not None and package.origin is not None
        # Not pytest's folder, which only its user may enter; and sockets have short paths.
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        packages = Path(package.origin).parents[1]
        self._spare: list[str] = []
        self._user: dict[str, int] = {}
        if os.geteuid() == 0:
            # Where a user without rights can read them, wherever .venv is.
            for name in ("pgserver/pginstall", "pgserver.libs"):
                ignored = shutil.ignore_patterns("include", "timezone", "locale")
                shutil.copytree(packages / name, self.folder / name, ignore=ignored)
            packages = self.folder
            self._user = {"user": NOBODY, "group": NOBODY}
            os.chown(self.folder, NOBODY, NOBODY)
        self._programs = packages / "pgserver/pginstall/bin"
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._run("initdb", "--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", self.data)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"port={self.port}\nlisten_addresses='127.0.0.1'\n")
            file.write(f"unix_socket_directories='{self.folder}'\n")
            file.writelines(f"{each}\n" for each in settings)
        self.start()

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """At the port of this machine."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database, or take a spare one; returns its URL."""
        if self._spare:
            return self._spare.pop()
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def spare(self, url: str) -> None:
        """Empty a database, for `new_database`: a third of a thousand files need not be made."""
        self.sql("DROP SCHEMA IF EXISTS scrfd_gallery CASCADE", url.rpartition("/")[2])
        self._spare.append(url)

    def sql(self, statements: str, database: str = "postgres") -> str:
        """What psql prints, unaligned, without headings."""
        return self._run(
            "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statements, self._local(database)
        )

    def allow(self, user: str, method: str) -> None:
        """Say how a user shows who it is, such as "scram-sha-256"; everybody else is trusted."""
        path = self.data / "pg_hba.conf"
        path.write_text(f"host all {user} all {method}\n{path.read_text()}")
        self.sql("SELECT pg_reload_conf()")

    def dump(self, database: str) -> str:
        """A backup: the statements that make its tables and rows again."""
        return self._run("pg_dump", self._local(database))

    def restore(self, dump: str, database: str) -> None:
        (self.folder / "dump").write_text(dump)
        self._run(
            "psql",
            "-Xq",
            "-v",
            "ON_ERROR_STOP=1",
            "-f",
            self.folder / "dump",
            self._local(database),
        )

    def start(self) -> None:
        self._run("pg_ctl", "-w", "-D", self.data, "-l", self.log, "start")

    def stop(self, mode: str = "fast") -> None:
        """End the server; the mode "smart" first waits until all clients have gone."""
        self._run("pg_ctl", "-w", "-D", self.data, "-m", mode, "stop")

    def kill(self) -> None:
        """SIGKILL to the server and its processes, as if the machine had lost its power."""
        processes = self._processes()
        self._signal(signal.SIGKILL)
        while any(map(_runs, processes)):
            time.sleep(0.01)
        # Where nobody asks for its exit status, the server would pass for running.
        (self.data / "postmaster.pid").unlink()
        (self.folder / f".s.PGSQL.{self.port}.lock").unlink()

    def pause(self) -> None:
        """SIGSTOP: the server still exists, connections stay, and nothing answers any more."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        if self._processes():
            self.resume()
            self.stop("immediate")
        shutil.rmtree(self.folder)

    def _local(self, database: str) -> str:
        return f"postgresql://postgres@:{self.port}/{database}?host={self.folder}"

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def _processes(self) -> list[int]:
        """The server and its children, the server first; none if it does not run."""
        try:
            server = int((self.data / "postmaster.pid").read_text().split()[0])
            children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return []
        return [server, *map(int, children)]

    def _run(self, program: str, *arguments: str | Path) -> str:
        # A file: the server, which pg_ctl leaves running, would keep a pipe open.
        with (self.folder / "output").open("w+") as output:
            done = subprocess.run(
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                **self._user,
            )
            output.seek(0)
            text = output.read().strip()
        if done.returncode:
            raise RuntimeError(f"{program}: {text}")
        return text


def _runs(process: int) -> bool:
    """Whether a process is there, and not only its exit status, which nobody may ever ask for."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
