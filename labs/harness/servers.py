"""PostgreSQL and MariaDB of a lab's own: in its folder, under their own users, on sockets alone."""

from __future__ import annotations

import os

from labs.harness.needs import program, trial
from labs.harness.process import Background
from labs.harness.world import World

POSTGRESQL = (
    trial(
        "PostgreSQLのサーバー",
        "ls /usr/lib/postgresql/*/bin/initdb",
        "sudo apt-get install -y postgresql",
        "postgresql",
    ),
    program("psql", "postgresql-client"),
    program("setpriv", "util-linux"),
)
MARIADB = (
    program("mariadbd", "mariadb-server"),
    program("mariadb", "mariadb-client"),
    program("setpriv", "util-linux"),
)
PSQL = "psql -U postgres"
_SOCKETS = "/run/postgresql"
# initdb and pg_ctl want a name for the user they run as; a sandbox without root has none.
_KNOWN = """\
getent passwd $(id -u) || {
  (cat /etc/passwd; echo "lab:x:$(id -u):$(id -g)::/tmp/lab:/bin/sh") > passwd
  mount --bind passwd /etc/passwd
}"""
_SMALL = "--innodb-log-file-size=8M --innodb-buffer-pool-size=16M"


def as_user(user: str) -> str:
    """Return what a command is prefixed with to run as a daemon's user, where we are root."""
    if os.geteuid() != 0:
        return ""
    return f"setpriv --reuid={user} --regid={user} --init-groups "


def home(world: World, user: str, *folders: str) -> None:
    """Make directories that belong to a daemon's user."""
    names = " ".join(folders)
    world.ask(f"mkdir -p {names}" + (f" && chown {user} {names}" if as_user(user) else ""))


def own(world: World, user: str, *paths: str) -> None:
    """Give files and directories that we made as root to a daemon's user."""
    if as_user(user):
        world.ask(f"chown -R {user} {' '.join(paths)}")


def programs(world: World) -> str:
    """Return the folder of PostgreSQL's server programs, the newest that is installed."""
    return world.ask("ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1").text.strip()


def make_postgresql(world: World, data: str = "pg", options: str = "") -> None:
    """Make a cluster (`initdb`) whose every local user is trusted."""
    home(world, "postgres", data, _SOCKETS)
    world.ask(_KNOWN)
    ours = "-U postgres --auth=trust --no-sync --encoding=UTF8"
    world.ask(f"{as_user('postgres')}{programs(world)}/initdb -D {data} {ours} {options}")


def run_postgresql(
    world: World, data: str = "pg", settings: str = "", port: int = 5432
) -> Background:
    """Start the server of a cluster that may end by itself; do not wait for it."""
    ours = f"-c listen_addresses= -k {_SOCKETS} -p {port}"
    program_ = f"{as_user('postgres')}{programs(world)}/postgres"
    return world.start_unseen(f"{program_} -D {data} {ours} {settings}")


def start_postgresql(
    world: World, data: str = "pg", settings: str = "", port: int = 5432
) -> Background:
    """Start the server of a cluster, and wait until it answers."""
    server = run_postgresql(world, data, settings, port)
    world.ask(f"{PSQL} -p {port} -c 'SELECT 1'", until="1 row", code=None)
    return server


def make_mariadb(world: World, data: str = "my") -> None:
    """Make a data directory (`mariadb-install-db`) whose root needs no password."""
    home(world, "mysql", data, "/run/mysqld")
    ours = "--auth-root-authentication-method=normal --skip-test-db --skip-name-resolve"
    place = f"--no-defaults --datadir={world.folder}/{data}"
    world.ask(f"{as_user('mysql')}mariadb-install-db {place} {ours} {_SMALL}")


def start_mariadb(world: World, data: str = "my", options: str = "") -> Background:
    """Start the server of a data directory, and wait until it answers."""
    place = f"--no-defaults --datadir={world.folder}/{data}"
    socket = "--socket=/run/mysqld/mysqld.sock --pid-file=/run/mysqld/pid --skip-networking"
    command = f"{as_user('mysql')}mariadbd {place} {socket} {_SMALL} {options}"
    server = world.start_unseen(command)
    world.ask("mariadb -u root -e 'SELECT 1'", until="^1", code=None)
    return server
