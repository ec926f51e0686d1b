"""What a commit has written, and what is there again after the server was killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from labs.harness import Background, Done, Lab, World, both, cut, only, servers

LAB = Lab(
    title="サーバーをSIGKILLで止め、回復させる",
    chapter="database/architecture",
    shows="コミットがどこに書かれるか、サーバーが急に止まると何が残り、何が消えるかを見ます。",
    facts={
        "commit-is-in-the-wal-first": (
            "PostgreSQLは、コミットした行をWALに書き、表のファイルには後で書く"
        ),
        "checkpoint-writes-the-table": "CHECKPOINTの後は、行が表のファイルにもある",
        "checkpoint-moves-the-start": "CHECKPOINTは、回復を始める位置を先へ進める",
        "checkpoint-writes-uncommitted-too": (
            "PostgreSQLのチェックポイントは、コミットしていない行も表のファイルに書く"
        ),
        "commit-waits-for-sync": "PostgreSQLは、1件ずつのコミットごとにWALを同期する",
        "recovery-starts-at-the-checkpoint": (
            "PostgreSQLの回復は、最後のチェックポイントが示す位置からWALをたどる"
        ),
        "postgresql-keeps-acknowledged": (
            "PostgreSQLは、成功を返したコミットを、SIGKILLの後もすべて残す"
        ),
        "mariadb-recovers-from-redo-log": "MariaDBは、SIGKILLの後の起動で回復を行う",
        "mariadb-keeps-acknowledged": (
            "MariaDBは、成功を返したコミットを、SIGKILLの後もすべて残す"
        ),
        "uncommitted-is-gone": "コミットしていない行は、どちらでも、回復の後に見えない",
        "asynchronous-commit-can-be-lost": (
            "synchronous_commit=offでは、成功を返したコミットがSIGKILLで消えることがある"
        ),
        "mariadb-flush-0-can-be-lost": (
            "MariaDBのinnodb_flush_log_at_trx_commit=0では、"
            "成功を返したコミットがSIGKILLで消えることがある"
        ),
        "one-backend-ends-all": (
            "PostgreSQLのバックエンドを1つSIGKILLすると、ほかの接続もすべて切れる"
        ),
        "one-thread-ends-the-process": ("MariaDBのスレッドを1つSIGKILLすると、プロセスごと終わる"),
    },
    needs=(*servers.POSTGRESQL, *servers.MARIADB),
    seconds=20,
)

_PSQL = servers.PSQL
_MARIADB = "mariadb -u root shop"
_POSTGRESQL_OPTIONS = "-c autovacuum=off -c bgwriter_lru_maxpages=0 -c log_line_prefix="
_LAZY = "-c wal_writer_delay=10s"
_LAZY_MARIADB = (
    "--innodb-flush-log-at-trx-commit=0 --innodb-flush-log-at-timeout=600"
    " --innodb-stats-persistent=0"  # new statistics would flush the log as well
)
# Many old rows: the few new ones do not make InnoDB count the table again.
_OLD = "INSERT INTO ledger SELECT 1000000 + seq, 'old' FROM seq_1_to_5000"
_TABLE = "CREATE TABLE ledger (id int PRIMARY KEY, note varchar(40))"
_ROWS = """\
for n in $(seq 1001 4000); do
  echo "INSERT INTO ledger VALUES ($n, 'committed');"
  echo "\\! echo $n >> acknowledged"
done > rows.sql"""
_OPEN = "BEGIN; INSERT INTO ledger VALUES (0, 'not-committed');"
_KILL = """\
SELECT id INTO @idle FROM information_schema.processlist WHERE command = 'Sleep';
KILL @idle;
"""
_OFF = "SET synchronous_commit = off;\n"
_REDO = "SELECT redo_lsn FROM pg_control_checkpoint()"
_LOG = both(
    cut(r"(?<=interrupted); .*", r"(?<=was shut down) at .*"),
    only(r"interrupted|automatic recovery|redo starts|ready to accept|was shut down"),
)


@dataclass(frozen=True)
class _Server:
    """How a product is named, asked, started and killed."""

    product: str
    program: str
    client: str
    ask: str
    settle: str
    start: Callable[[World, str], Background]
    halt: str


def _start_postgresql(world: World, settings: str = "") -> Background:
    ours = f"{_POSTGRESQL_OPTIONS} {settings} 2> pg.log"
    return servers.start_postgresql(world, settings=ours)


def _start_mariadb(world: World, options: str = "") -> Background:
    return servers.start_mariadb(world, options=f"{options} 2> my.log")


_POSTGRESQL = _Server(
    product="PostgreSQL",
    program="postgres",
    client=f"{_PSQL} -q",
    ask=f"{_PSQL} -q -At -c",
    settle="SELECT pg_switch_wal()",  # a full page of WAL would wake the WAL writer
    start=_start_postgresql,
    halt="kill -INT $(head -n 1 pg/postmaster.pid)",
)
_MARIA = _Server(
    product="MariaDB",
    program="mariadbd",
    client=f"{_MARIADB} -n",
    ask=f"{_MARIADB} -N -e",
    settle="SELECT sleep(2)",  # the first flush in the background comes soon after the start
    start=_start_mariadb,
    halt="kill -TERM $(pidof mariadbd)",
)


def run(world: World) -> None:
    """Follow one commit to the files, then kill both servers under a writing client."""
    _wal_first(world)
    _syncs(world)
    left = _crash_postgresql(world)
    _crash_mariadb(world, left)
    _lazy_postgresql(world)
    _lazy_mariadb(world)
    _backend(world)
    _thread(world)


# Where a commit is written


def _make_postgresql(world: World, settings: str = "") -> Background:
    servers.make_postgresql(world)
    server = _start_postgresql(world, settings)
    world.ask(f"{_PSQL} -qc '{_TABLE}' -c CHECKPOINT")
    return server


def _make_mariadb(world: World, options: str = "") -> Background:
    servers.make_mariadb(world)
    server = _start_mariadb(world, options)
    world.ask(f"mariadb -u root -e 'CREATE DATABASE shop' && {_MARIADB} -e '{_TABLE}'")
    world.ask(f'{_MARIADB} -e "{_OLD}"')
    return server


def _table(world: World) -> str:
    """Return the file of the table."""
    path = f"{_PSQL} -At -c \"SELECT pg_relation_filepath('ledger')\""
    return "pg/" + world.ask(path).text.strip()


def _wal_first(world: World) -> None:
    world.section("wal-first", "コミットした行は、どのファイルにあるか")
    world.say("PostgreSQLを起動し、表ledgerを作って、CHECKPOINTを実行しておきました。")
    _make_postgresql(world)
    world.do(f"{_PSQL} -At -c 'SHOW server_version'")
    redo = _redo(world)
    world.do(f"{_PSQL} -c \"INSERT INTO ledger VALUES (1, 'first-row')\"")
    world.say("行の文字列を、WALのファイルと、表のファイルで数えます。")
    in_wal, in_table = _count(world, "pg/pg_wal/0*"), _count(world, _table(world))
    seen = f"WALに{in_wal}、表に{in_table}"
    world.fact("commit-is-in-the-wal-first", _wal_only(in_wal, in_table), seen=seen)
    world.say("CHECKPOINTの後で、もう一度数えます。")
    world.do(f"{_PSQL} -c CHECKPOINT")
    in_table = _count(world, _table(world))
    world.fact("checkpoint-writes-the-table", in_table > 0, seen=f"表に{in_table}")
    moved = _redo(world)
    seen = "回復を始める位置（redo_lsn）が進んだ"
    world.fact("checkpoint-moves-the-start", moved != redo, seen=seen)


def _count(world: World, file: str, note: str = "first-row") -> int:
    """Show and return in how many lines of a file a row's text stands."""
    return int(world.do(f"grep -ac {note} {file}", code=None).text)


def _wal_only(in_wal: int, in_table: int) -> bool:
    return in_wal > 0 and in_table == 0


def _redo(world: World) -> str:
    """Show and return the place in the WAL where a recovery would begin."""
    return world.do(f"{_PSQL} -At -c '{_REDO}'").text.strip()


def _syncs(world: World) -> None:
    world.section("syncs", "10件を1件ずつコミットし、WALの同期を数える")
    synced = _sync(world, "")
    world.fact("commit-waits-for-sync", _each(synced), seen=f"同期が{synced}回増えた")


def _each(synced: int) -> bool:
    return synced >= 10


def _sync(world: World, begin: str) -> int:
    """Insert ten rows one after another; return how many times the WAL was synced."""
    count = f"{_PSQL} -At -c 'SELECT wal_sync FROM pg_stat_wal'"
    before = int(world.do(count).text)
    inserts = "INSERT INTO ledger SELECT max(id) + 1 FROM ledger;\n" * 10
    world.file("ten.sql", f"{begin}{inserts}{begin and 'COMMIT;'}\n", unseen=True)
    world.say("ten.sqlは、INSERTを10回実行します。")
    world.do(f"{_PSQL} -q -f ten.sql")
    return int(world.do(count).text) - before


# Crashes


@dataclass(frozen=True)
class _After:
    """What was acknowledged before a crash, and what was there after it."""

    acknowledged: set[int]
    rows: set[int]

    @property
    def kept(self) -> bool:
        """Return whether no acknowledged row is missing."""
        return bool(self.acknowledged) and self.acknowledged <= self.rows

    @property
    def seen(self) -> str:
        """Return the count of acknowledged rows and of those that are missing."""
        missing = len(self.acknowledged - self.rows)
        return f"成功の返事{len(self.acknowledged)}件のうち、ないのは{missing}件"


def _hold_open(world: World, server: _Server, end: str = "") -> Background:
    world.say("1つ目のクライアントは、行を入れた後、何もせずに待ちます。")
    lines = f"{_OPEN}{end} SELECT 'inserted';"
    held = world.start(f'(echo "{lines}"; sleep 100) | {server.client}')
    held.wait_for("inserted")
    return held


def _crash(world: World, server: _Server, running: Background) -> _After:
    """Kill a server while a client commits rows, and start it again."""
    world.ask(f"rm -f acknowledged; {_ROWS}")
    world.do("head -n 4 rows.sql")
    world.say("2つ目のクライアントは、1行ずつコミットし、成功した番号を別のファイルに残します。")
    world.start(f"{server.client} < rows.sql")
    world.ask("tail -n 1 acknowledged", until=r"^1[1-9]\d\d", code=None)
    _kill(world, server, running)
    acknowledged = set(map(int, world.ask("cat acknowledged").lines))
    server.start(world, "")
    rows = world.ask(f'{server.ask} "SELECT id FROM ledger WHERE id BETWEEN 1001 AND 4000"').lines
    return _After(acknowledged, set(map(int, rows)))


def _kill(world: World, server: _Server, running: Background) -> None:
    world.say(f"{server.product}のプロセスを、すべてSIGKILLで終わらせます。")
    world.do(f"kill -KILL $(pidof {server.program}) 2> /dev/null")
    running.wait()
    world.ask(f"pidof {server.program} || echo none", until="none")


def _uncommitted(world: World, server: _Server) -> str:
    """Show and return how many rows number 0 a client sees."""
    left = "SELECT count(*) FROM ledger WHERE id = 0"
    return world.do(f'{server.ask} "{left}"').text.strip()


def _crash_postgresql(world: World) -> str:
    world.section("crash-postgresql", "書き込みの途中で、PostgreSQLをSIGKILLする")
    _stop(world, _POSTGRESQL)
    running = _start_postgresql(world)
    _hold_open(world, _POSTGRESQL)
    world.say("コミットしないまま、CHECKPOINTを実行します。")
    world.do(f"{_PSQL} -c CHECKPOINT")
    redo = _redo(world)
    written = _count(world, _table(world), "not-committed")
    world.fact("checkpoint-writes-uncommitted-too", written > 0, seen=f"表に{written}")
    after = _crash(world, _POSTGRESQL, running)
    world.say("起動し直しました。redo startsの位置を、上の位置（redo_lsn）と比べます。")
    log = world.do("cat pg.log", show=_LOG)
    seen = "redo_lsnと同じ位置から始まった"
    world.fact("recovery-starts-at-the-checkpoint", _from(log, redo), seen=seen)
    world.fact("postgresql-keeps-acknowledged", after.kept, seen=after.seen)
    world.say("コミットしていない行（番号0）を数えます。")
    return _uncommitted(world, _POSTGRESQL)


def _from(log: Done, redo: str) -> bool:
    return log.has(rf"redo starts at {redo}$")


def _crash_mariadb(world: World, left: str) -> None:
    world.section("crash-mariadb", "書き込みの途中で、MariaDBをSIGKILLする")
    running = _make_mariadb(world)
    world.do(f"{_MARIADB} -N -e 'SELECT version()'")
    _hold_open(world, _MARIA)
    after = _crash(world, _MARIA, running)
    world.say("起動し直しました。")
    seen = "ログに回復の開始が出た"
    world.fact("mariadb-recovers-from-redo-log", _recovered(world, "Rolled back"), seen=seen)
    world.fact("mariadb-keeps-acknowledged", after.kept, seen=after.seen)
    gone = _gone(left, _uncommitted(world, _MARIA))
    world.fact("uncommitted-is-gone", gone, seen="番号0の行は、どちらも0件")


def _gone(*counts: str) -> bool:
    return set(counts) == {"0"}


def _recovered(world: World, last: str) -> bool:
    lines = "grep -E 'crash recovery|olled back|ready for' my.log"
    done = world.do(lines, until=last, show=cut(r"(?m)^\S+ +\S+ +\d+ "))
    return done.has("Starting crash recovery")


# Commits that do not wait


def _lazy_postgresql(world: World) -> None:
    world.section("asynchronous-commit", "synchronous_commit=offでコミットし、SIGKILLする")
    world.say("WALライターが書く間隔を10秒に延ばし、その前に止めます。")
    after = _ten(world, _POSTGRESQL, _OFF, _LAZY)
    world.fact("asynchronous-commit-can-be-lost", not after.kept, seen=after.seen)


def _ten(world: World, server: _Server, first: str, settings: str) -> _After:
    """Commit ten rows on a server that was just started, kill it, and see what is left."""
    _stop(world, server)
    world.ask("rm -f acknowledged")
    running = server.start(world, settings)
    world.ask(f'{server.ask} "DELETE FROM ledger WHERE id BETWEEN 100 AND 110"')
    world.ask(f"{server.ask} \"INSERT INTO ledger VALUES (100, 'before')\"")
    world.ask(f"{server.ask} '{server.settle}'")
    ids = range(101, 111)
    lines = "".join(f"INSERT INTO ledger VALUES ({n}, 'committed');\n" for n in ids)
    world.file("ten.sql", f"{first}{lines}\\! echo done >> acknowledged\n", unseen=True)
    world.say("ten.sqlは、10件を1件ずつコミットします。")
    world.do("head -n 2 ten.sql")
    world.do(f"{server.client} < ten.sql && cat acknowledged")
    _kill(world, server, running)
    server.start(world, "")
    world.say("起動し直し、残った行を数えます。")
    rows = "FROM ledger WHERE id BETWEEN 101 AND 110"
    world.do(f"{server.ask} 'SELECT count(*) {rows}'")
    left = world.ask(f"{server.ask} 'SELECT id {rows}'").lines
    return _After(set(ids), set(map(int, left)))


def _stop(world: World, server: _Server) -> None:
    """Stop a server in order."""
    world.ask(server.halt)
    world.ask(f"pidof {server.program} || echo none", until="none")


def _lazy_mariadb(world: World) -> None:
    world.section("flush-0", "innodb_flush_log_at_trx_commit=0でコミットし、SIGKILLする")
    world.say("redoログを書く間隔も延ばし、統計の自動更新は止めておきます。")
    after = _ten(world, _MARIA, "", _LAZY_MARIADB)
    world.fact("mariadb-flush-0-can-be-lost", not after.kept, seen=after.seen)


# One of many


def _backend(world: World) -> None:
    world.section("one-backend", "PostgreSQLのバックエンドを、1つだけSIGKILLする")
    alive = _end_one_backend(world, "KILL")
    seen = f"接続3本のうち、プロセスが残ったのは{alive}本"
    world.do("cat pg.log", show=only("terminated by signal|terminating any|reinitializing"))
    world.fact("one-backend-ends-all", alive == 0, seen=seen)


def _end_one_backend(world: World, signal: str) -> int:
    """End one of three backends; return how many of the three are left."""
    held = [world.start(f"sleep 100 | {_PSQL}") for _ in range(3)]
    shown = world.do("ps -C postgres -o pid,args | grep idle", until=r"(?s)(idle.*){3}")
    pids = shown.all(r"^ *(\d+) postgres: .* idle")
    world.name("pid", *pids)
    world.do(f"kill -{signal} {pids[0]}")
    known = "ps -C postgres -o pid,args | grep idle || echo none"
    world.ask(known, until=rf"^(?!(?s:.*)\b{pids[0]}\b)(?s:.+)")
    world.ask(f"{_PSQL} -c 'SELECT 1'", until="1 row", code=None)
    left = world.do(known).all(r"^ *(\d+) postgres: .* idle")
    for one in held:
        one.stop()
    return len(set(pids) & set(left))


def _thread(world: World) -> None:
    world.section("one-thread", "MariaDBのスレッドを、1つだけSIGKILLする")
    tid = _held_thread(world)
    world.do(f"kill -KILL {tid}")
    world.ask("pidof mariadbd || echo none", until="none")
    left = world.do("pidof mariadbd || echo none").has("none")
    world.fact("one-thread-ends-the-process", left, seen="mariadbdのプロセスがなくなった")


def _held_thread(world: World) -> str:
    """Open a connection that does nothing; return its thread."""
    world.start(f"sleep 100 | {_MARIADB}")
    query = "SELECT tid, command FROM information_schema.processlist WHERE command = 'Sleep'"
    shown = world.do(f'{_MARIADB} -N -e "{query}"', until="Sleep")
    tid = str(shown.find(r"^(\d+)\t")[1])
    world.name("pid", tid)
    return tid


def control(world: World) -> None:
    """Checkpoint or not, commit, wait or do not, stop in order, and end one connection alone."""
    _checkpoints(world)
    _in_order(world)
    _lazy_clients(world)
    _waiting(world)
    _one_alone(world)


def _checkpoints(world: World) -> None:
    world.section("checkpoints", "CHECKPOINTを入れる、入れない")
    _make_postgresql(world)
    redo = _redo(world)
    world.do(f"{_PSQL} -c \"INSERT INTO ledger VALUES (1, 'first-row')\"")
    in_table = _count(world, _table(world))
    why = "CHECKPOINTがなければ、表のファイルにはまだない"
    world.control("checkpoint-writes-the-table", in_table > 0, why=why, seen=f"表に{in_table}")
    why = "CHECKPOINTがなければ、回復を始める位置は動かない"
    moved = _redo(world) != redo
    world.control("checkpoint-moves-the-start", moved, why=why, seen="redo_lsnは同じ")
    held = _hold_open(world, _POSTGRESQL)
    written = _count(world, _table(world), "not-committed")
    held.stop()
    why = "CHECKPOINTがなければ、コミットしていない行もメモリにあるだけ"
    seen = f"表に{written}"
    world.control("checkpoint-writes-uncommitted-too", written > 0, why=why, seen=seen)
    world.do(f"{_PSQL} -c CHECKPOINT")
    in_wal, in_table = _count(world, "pg/pg_wal/0*"), _count(world, _table(world))
    why = "CHECKPOINTの後は、表のファイルにもある"
    seen, holds = f"WALに{in_wal}、表に{in_table}", _wal_only(in_wal, in_table)
    world.control("commit-is-in-the-wal-first", holds, why=why, seen=seen)
    synced = _sync(world, "BEGIN;\n")
    why = "1つのトランザクションにまとめれば、待つ同期は1回で済む"
    world.control("commit-waits-for-sync", _each(synced), why=why, seen=f"{synced}回")


def _in_order(world: World) -> None:
    world.section("in-order", "コミットし、順番どおりに止める")
    world.say("今度は1つ目のクライアントもコミットします。止め方は、SIGINTとSIGTERMです。")
    redo = _redo(world)
    _hold_open(world, _POSTGRESQL, " COMMIT;")
    _stop(world, _POSTGRESQL)
    _start_postgresql(world)
    log = world.do("cat pg.log", show=_LOG)
    why = "順番どおりに止めると、終わりにチェックポイントがあり、たどるWALがない"
    seen = "redo startsは出ない"
    world.control("recovery-starts-at-the-checkpoint", _from(log, redo), why=why, seen=seen)
    left = _uncommitted(world, _POSTGRESQL)
    _make_mariadb(world)
    _hold_open(world, _MARIA, " COMMIT;")
    _stop(world, _MARIA)
    _start_mariadb(world)
    why = "順番どおりに止めると、次の起動で回復は始まらない"
    seen, holds = "回復の行はない", _recovered(world, "ready for")
    world.control("mariadb-recovers-from-redo-log", holds, why=why, seen=seen)
    other = _uncommitted(world, _MARIA)
    why = "コミットすれば、起動し直しても残る"
    seen = f"番号0の行は、{left}件と{other}件"
    world.control("uncommitted-is-gone", _gone(left, other), why=why, seen=seen)


def _lazy_clients(world: World) -> None:
    world.section("lazy-clients", "同期を待たない設定でコミットし、SIGKILLする")
    after = _ten(world, _POSTGRESQL, _OFF, _LAZY)
    why = "同期を待たずに成功を返すと、返したものがなくなる"
    world.control("postgresql-keeps-acknowledged", after.kept, why=why, seen=after.seen)
    after = _ten(world, _MARIA, "", _LAZY_MARIADB)
    world.control("mariadb-keeps-acknowledged", after.kept, why=why, seen=after.seen)


def _waiting(world: World) -> None:
    world.section("waiting", "同期を待つ、またはファイルまで書く")
    after = _ten(world, _POSTGRESQL, _OFF.replace("off", "on"), _LAZY)
    why = "onなら、WALの同期を待ってから成功を返す"
    world.control("asynchronous-commit-can-be-lost", not after.kept, why=why, seen=after.seen)
    after = _ten(world, _MARIA, "", _LAZY_MARIADB.replace("commit=0", "commit=2"))
    why = "2なら、コミットのたびにOSへ書くので、プロセスが消えても残る"
    world.control("mariadb-flush-0-can-be-lost", not after.kept, why=why, seen=after.seen)


def _one_alone(world: World) -> None:
    world.section("one-alone", "接続を1つだけ、決められた方法で終わらせる")
    alive = _end_one_backend(world, "TERM")
    why = "SIGTERMなら、その接続だけが後始末をして終わる"
    seen = f"接続3本のうち、残ったのは{alive}本"
    world.control("one-backend-ends-all", alive == 0, why=why, seen=seen)
    _held_thread(world)
    world.file("kill.sql", _KILL)
    world.do(f"{_MARIADB} < kill.sql")
    left = world.do("pidof mariadbd || echo none").has("none")
    why = "KILL文なら、その接続だけが終わる"
    world.control("one-thread-ends-the-process", left, why=why, seen="プロセスは残った")
