"""How PostgreSQL and MariaDB serve connections, isolate transactions and keep old rows."""

from __future__ import annotations

from labs.harness import Background, Done, Lab, World, servers, trial

_APT = "sudo apt-get install -y postgresql"

LAB = Lab(
    title="PostgreSQLとMariaDBを並べて動かす",
    chapter="database/postgresql-vs-mysql",
    shows="同じ操作を両方にして、接続、分離レベル、DDL、古い行の扱いの違いを見ます。",
    facts={
        "postgresql-process-per-connection": "PostgreSQLは、接続ごとにプロセスを1つ作る",
        "mariadb-thread-per-connection": "MariaDBは、1つのプロセスの中で接続ごとにスレッドを使う",
        "readers-do-not-wait": "PostgreSQLもMariaDBも、更新中の行を待たずに前の値を読める",
        "postgresql-defaults-to-read-committed": (
            "PostgreSQLの既定では、後からコミットされた値が途中で見える（read committed）"
        ),
        "mariadb-defaults-to-repeatable-read": (
            "MariaDBの既定では、最初に読んだ値が最後まで見える（REPEATABLE-READ）"
        ),
        "postgresql-ddl-rolls-back": "PostgreSQLでは、CREATE TABLEもROLLBACKで取り消せる",
        "mariadb-ddl-commits": "MariaDBのCREATE TABLEは、その前のINSERTもコミットしてしまう",
        "postgresql-update-leaves-dead-rows": "PostgreSQLのUPDATEは、古い行版を表の中に残す",
        "vacuum-removes-dead-rows": "VACUUMは、どのトランザクションも使わない古い行版を片づける",
        "vacuum-keeps-the-file": "VACUUMは、表の途中にできた空きをOSに返さない",
        "vacuum-full-shrinks-the-file": "VACUUM FULLは、表を作り直してファイルを小さくする",
        "mariadb-update-is-in-place": "MariaDBの表（InnoDB）は、同じ長さの更新では大きくならない",
    },
    needs=(
        *servers.POSTGRESQL,
        trial("pgstattuple", "ls /usr/share/postgresql/*/extension/pgstattuple.control", _APT),
        *servers.MARIADB,
    ),
    seconds=8,
)

_PSQL = servers.PSQL
_MARIADB = "mariadb -u root shop"

_POOL = "--thread-handling=pool-of-threads --thread-pool-size=1 --thread-pool-idle-timeout=1"

_TABLES = """\
CREATE TABLE account (id int PRIMARY KEY, balance int);
INSERT INTO account VALUES (1, 100);
CREATE TABLE item (id int PRIMARY KEY, price int, note varchar(2000));
"""

_ISOLATION = """\
BEGIN;
SELECT '1回目', balance FROM account;
\\! {other} "UPDATE account SET balance = 200"
SELECT '2回目', balance FROM account;
COMMIT;
"""

_WRITER = """\
BEGIN;
UPDATE account SET balance = 300;
\\! {other} "SELECT '別の接続から', balance FROM account{lock}"
ROLLBACK;
"""

_DDL = """\
BEGIN;
INSERT INTO account VALUES (2, 50);
{ddl}ROLLBACK;
"""
_CREATE = "CREATE TABLE memo (note varchar(100));\n"
_AFTER = """\
SELECT '行', id FROM account WHERE id = 2;
SELECT '表', table_name FROM information_schema.tables WHERE table_name = 'memo';
"""

_SIZE = """\
\\pset footer off
SELECT dead_tuple_count AS dead, table_len AS bytes FROM pgstattuple('item');
"""

_ROW = r"^ +\d+ \| +\d+$"

_HOLD = """\
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM account;
\\! psql -U postgres -qc 'UPDATE item SET price = price + 1'
\\! psql -U postgres -qc 'VACUUM item'
\\! psql -U postgres -qf size.sql
\\! psql -U postgres -qc 'VACUUM FULL item'
\\! psql -U postgres -qf size.sql
COMMIT;
"""


def run(world: World) -> None:
    """Do the same to both servers, and see where they differ."""
    _start_both(world)
    _versions(world)
    _connections(world)
    _readers(world)
    _isolation(world)
    _ddl(world)
    _dead_rows(world)
    _in_place(world)


# Servers


def _start_postgresql(world: World) -> None:
    servers.make_postgresql(world)
    servers.start_postgresql(world, settings="-c autovacuum=off")
    world.file("tables.sql", _TABLES, unseen=True)
    world.ask(f"{_PSQL} -q -f tables.sql -c 'CREATE EXTENSION pgstattuple'")


def _start_mariadb(world: World, options: str = "") -> None:
    servers.make_mariadb(world)
    servers.start_mariadb(world, options=options)
    world.file("tables.sql", _TABLES, unseen=True)
    world.ask(f"mariadb -u root -e 'CREATE DATABASE shop' && {_MARIADB} < tables.sql")


def _start_both(world: World, options: str = "") -> None:
    world.section("servers", "2つのサーバーを起動する")
    world.say("それぞれを一時ディレクトリーで、専用の利用者として起動しておきました。")
    _start_postgresql(world)
    _start_mariadb(world, options)


def _versions(world: World) -> None:
    world.say(
        "MariaDBはMySQLから分かれた別の製品です。ここで見た動作が、MySQLと同じとは限りません。"
    )
    world.do(f"{_PSQL} -At -c 'SHOW server_version'")
    world.do(f"{_MARIADB} -N -e 'SELECT version()'")


# Connections


def _hold(world: World, command: str) -> list[Background]:
    """Open three connections that do nothing."""
    return [world.start(f"sleep 100 | {command}") for _ in range(3)]


def _connections(world: World) -> None:
    world.section("connections", "接続を3本開いたままにする")
    world.say("PostgreSQLでは、待機中の接続（idle）がpsに並びます。PPIDは、どれも同じ親です。")
    held = _hold(world, _PSQL)
    backends = world.do(
        "ps -C postgres -o pid,ppid,args | grep -E 'PID|idle'", until=r"(?s)(idle.*){3}"
    )
    pids = backends.all(r"^ *(\d+) +\d+ postgres: .* idle")
    parents = set(backends.all(r"^ *\d+ +(\d+) postgres: .* idle"))
    holds = _three(pids) and len(parents) == 1
    seen = f"プロセス{len(set(pids))}個、親は{len(parents)}つ"
    world.fact("postgresql-process-per-connection", holds, seen=seen)
    _close(held)
    world.say("MariaDBのプロセスは1つです。接続が使うスレッドの番号（TID）を尋ねます。")
    held = _hold(world, _MARIADB)
    tids = _threads(world)
    processes = world.do("ps -C mariadbd -o pid,comm").all("mariadbd$")
    holds = _three(_alive(world, tids)) and len(processes) == 1
    seen = f"プロセス{len(processes)}個、3本の接続にスレッド{len(set(tids))}本"
    world.fact("mariadb-thread-per-connection", holds, seen=seen)
    _close(held)


def _close(held: list[Background]) -> None:
    for one in held:
        one.stop()


def _three(numbers: list[str]) -> bool:
    return len(numbers) == len(set(numbers)) == 3


def _threads(world: World) -> list[str]:
    """Show and return the threads of three idle connections."""
    query = "SELECT tid, command FROM information_schema.processlist WHERE command = 'Sleep'"
    shown = world.do(f'{_MARIADB} -t -e "{query}"', until=r"(?s)(Sleep.*){3}")
    tids = shown.all(r"^\| +(\d+) \| Sleep")
    world.name("pid", *tids)
    return tids


def _alive(world: World, tids: list[str]) -> list[str]:
    """Return those threads that the kernel still knows."""
    known = world.ask("ls /proc/$(pidof mariadbd)/task").lines
    return sorted(set(tids) & set(known))


# Transactions


def _both(world: World, name: str, text: str, **values: str) -> tuple[Done, Done]:
    """Give the same SQL to both, each with its own client for the other connection."""
    world.say("`\\!`の行は、途中で別の接続から実行します。")
    world.say("MariaDBには、この行のクライアントだけが違うファイルを渡します。")
    world.file(f"{name}.sql", text.format(other=f"{_PSQL} -At -c", **values))
    world.file(f"{name}-mariadb.sql", text.format(other=f"{_MARIADB} -N -e", **values), unseen=True)
    one = world.do(f"{_PSQL} -q -At -f {name}.sql", show=_no_tag)
    other = world.do(f"{_MARIADB} -N < {name}-mariadb.sql")
    return one, other


def _no_tag(text: str) -> str:
    return text.replace("UPDATE 1\n", "")


def _values(done: Done) -> list[str]:
    return done.all(r"^(?:1回目|2回目|別の接続から)[|\t](\d+)$")


def _readers(world: World) -> None:
    world.section("readers", "更新の途中で、別の接続から読む")
    one, other = _both(world, "writer", _WRITER, lock="")
    seen = f"PostgreSQLは{'、'.join(_values(one))}、MariaDBは{'、'.join(_values(other))}"
    world.fact("readers-do-not-wait", _read_old(one, other), seen=seen)


def _read_old(*answers: Done) -> bool:
    return all(_values(done) == ["100"] for done in answers)


def _isolation(world: World) -> None:
    world.section("isolation", "2回読む間に、別の接続が更新する")
    world.say("どちらも、分離レベルを指定しません。")
    one, other = _both(world, "isolation", _ISOLATION)
    seen = " → ".join(_values(one))
    world.fact("postgresql-defaults-to-read-committed", _changed(one), seen=seen)
    seen = " → ".join(_values(other))
    world.fact("mariadb-defaults-to-repeatable-read", _unchanged(other), seen=seen)
    world.do(f"{_PSQL} -At -c 'SHOW default_transaction_isolation'")
    world.do(f"{_MARIADB} -N -e 'SELECT @@tx_isolation'")


def _changed(done: Done) -> bool:
    return _values(done) == ["100", "200"]


def _unchanged(done: Done) -> bool:
    return _values(done) == ["100", "100"]


def _ddl(world: World) -> None:
    world.section("ddl", "トランザクションの中で表を作り、取り消す")
    world.file("ddl.sql", _DDL.format(ddl=_CREATE))
    world.file("after.sql", _AFTER)
    one, other = _roll_back(world)
    world.fact("postgresql-ddl-rolls-back", one == [], seen="行も表も残らない")
    world.fact("mariadb-ddl-commits", "行" in other, seen="、".join(other) + "が残る")


def _roll_back(world: World) -> tuple[list[str], list[str]]:
    """Run ddl.sql on both; return what is left of the row and the table."""
    kinds = r"^(行|表)[|\t]"
    world.do(f"{_PSQL} -q -f ddl.sql")
    one = world.do(f"{_PSQL} -At -f after.sql").all(kinds)
    world.do(f"{_MARIADB} < ddl.sql")
    other = world.do(f"{_MARIADB} -N < after.sql").all(kinds)
    return one, other


# Old rows


def _fill(world: World) -> None:
    world.do(f"{_PSQL} -qc 'INSERT INTO item SELECT n, 100 FROM generate_series(1, 1000) AS n'")


def _table(world: World) -> tuple[int, int]:
    """Show a table's dead rows and its size, and return both."""
    return _sizes(world.do(f"{_PSQL} -qf size.sql"))[0]


def _sizes(done: Done) -> list[tuple[int, int]]:
    return [(int(row[0]), int(row[2])) for row in map(str.split, done.all(_ROW))]


def _dead_rows(world: World) -> None:
    world.section("dead-rows", "1000行を更新し、古い行版を数える")
    world.say("pgstattupleは、古い行版（dead）の数と、表のファイルの大きさを調べます。")
    world.file("size.sql", _SIZE)
    _fill(world)
    before = _table(world)
    world.do(f"{_PSQL} -qc 'UPDATE item SET price = price + 1'")
    updated = _table(world)
    seen = f"古い行版{before[0]} → {updated[0]}、{before[1]} → {updated[1]}バイト"
    world.fact("postgresql-update-leaves-dead-rows", _left_dead(updated), seen=seen)
    world.do(f"{_PSQL} -qc 'VACUUM item'")
    vacuumed = _table(world)
    holds = _removed(updated, vacuumed)
    seen = f"古い行版{updated[0]} → {vacuumed[0]}"
    world.fact("vacuum-removes-dead-rows", holds, seen=seen)
    holds = _same_size(updated, vacuumed)
    seen = f"{updated[1]} → {vacuumed[1]}バイト"
    world.fact("vacuum-keeps-the-file", holds, seen=seen)
    world.do(f"{_PSQL} -qc 'VACUUM FULL item'")
    full = _table(world)
    holds, seen = _shrunk(vacuumed, full), f"{vacuumed[1]} → {full[1]}バイト"
    world.fact("vacuum-full-shrinks-the-file", holds, seen=seen)


def _left_dead(table: tuple[int, int]) -> bool:
    return table[0] == 1000


def _removed(before: tuple[int, int], after: tuple[int, int]) -> bool:
    return before[0] > 0 == after[0]


def _same_size(before: tuple[int, int], after: tuple[int, int]) -> bool:
    return before[1] == after[1]


def _shrunk(before: tuple[int, int], after: tuple[int, int]) -> bool:
    return after[1] < before[1]


def _fill_innodb(world: World) -> None:
    world.do(f"{_MARIADB} -e \"INSERT INTO item SELECT seq, 100, '' FROM seq_1_to_1000\"")


def _file(world: World) -> int:
    return int(world.do("stat -c '%n %s' my/shop/item.ibd").find(r" (\d+)$")[1])


def _update_innodb(world: World, change: str) -> tuple[int, int]:
    """Update every row and return the size of the table's file before and after."""
    before = _file(world)
    world.do(f'{_MARIADB} -e "UPDATE item SET {change}"')
    return before, _file(world)


def _in_place(world: World) -> None:
    world.section("in-place", "MariaDBでも1000行を更新する")
    world.say("InnoDBは、表の行を書き換え、古い値をundoログに移します。")
    _fill_innodb(world)
    before, after = _update_innodb(world, "price = price + 1")
    seen = f"{before} → {after}バイト"
    world.fact("mariadb-update-is-in-place", before == after, seen=seen)


def control(world: World) -> None:
    """Take the causes away: one connection, a pool, locks, other levels, no DDL, old readers."""
    _start_both(world, _POOL)
    _shared_connection(world)
    _thread_pool(world)
    _locking_readers(world)
    _other_levels(world)
    _without_ddl(world)
    _held_back(world)
    _empty_tail(world)
    _longer_rows(world)


def _shared_connection(world: World) -> None:
    world.section("one-connection", "1本の接続で3回尋ねる")
    query = "-c 'SELECT pg_backend_pid()'"
    pids = world.do(f"{_PSQL} -At {query} {query} {query}").lines
    world.name("pid", *pids)
    why = "プロセスは接続に対して作られ、1本の接続を使い回せば増えない"
    seen = f"3回ともプロセスは{len(set(pids))}個"
    world.control("postgresql-process-per-connection", _three(pids), why=why, seen=seen)


def _thread_pool(world: World) -> None:
    world.section("thread-pool", "MariaDBをpool-of-threadsで動かす")
    held = _hold(world, _MARIADB)
    tids = _threads(world)
    world.say("仕事のないスレッドは、1秒で終わる設定にしてあります。接続は開いたままです。")
    world.until(lambda: not _three(_alive(world, tids)), "スレッドが終わる")
    alive = _alive(world, tids)
    why = "スレッドプールでは、何もしていない接続のためにスレッドを残さない"
    seen = f"接続3本のスレッドのうち、まだあるのは{len(alive)}本"
    world.control("mariadb-thread-per-connection", _three(alive), why=why, seen=seen)
    _close(held)


def _locking_readers(world: World) -> None:
    world.section("locking-readers", "読む側もロックを取ろうとする")
    one, other = _both(world, "writer", _WRITER, lock=" FOR UPDATE NOWAIT")
    why = "FOR UPDATEを付けた読み出しは、更新中の行のロックを取れない"
    seen, holds = "両方ともエラー", _read_old(one, other)
    world.control("readers-do-not-wait", holds, why=why, seen=seen)


def _other_levels(world: World) -> None:
    world.section("other-levels", "分離レベルを入れ替える")
    text = _ISOLATION.replace("BEGIN;", "BEGIN ISOLATION LEVEL REPEATABLE READ;")
    world.file("pg.sql", text.format(other=f"{_PSQL} -At -c"))
    one = world.do(f"{_PSQL} -q -At -f pg.sql", show=_no_tag)
    why = "REPEATABLE READにすれば、PostgreSQLでも最初の値が見え続ける"
    seen = " → ".join(_values(one))
    holds = _changed(one)
    world.control("postgresql-defaults-to-read-committed", holds, why=why, seen=seen)
    level = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;\nBEGIN;"
    text = _ISOLATION.replace("BEGIN;", level)
    world.file("mariadb.sql", text.format(other=f"{_MARIADB} -N -e"))
    other = world.do(f"{_MARIADB} -N < mariadb.sql")
    why = "READ COMMITTEDにすれば、MariaDBでも途中で変わる"
    seen, holds = " → ".join(_values(other)), _unchanged(other)
    world.control("mariadb-defaults-to-repeatable-read", holds, why=why, seen=seen)


def _without_ddl(world: World) -> None:
    world.section("without-ddl", "BEGINを除く、CREATE TABLEを除く")
    world.file("after.sql", _AFTER, unseen=True)
    world.file("ddl.sql", _DDL.format(ddl=_CREATE).replace("BEGIN;\n", ""))
    world.do(f"{_PSQL} -q -f ddl.sql")
    one = world.do(f"{_PSQL} -At -f after.sql").all(r"^(行|表)\|")
    why = "BEGINがなければ1文ずつコミットされ、ROLLBACKでは取り消せない"
    seen = "、".join(one) + "が残る"
    world.control("postgresql-ddl-rolls-back", one == [], why=why, seen=seen)
    world.file("ddl.sql", _DDL.format(ddl=""))
    world.do(f"{_MARIADB} < ddl.sql")
    other = world.do(f"{_MARIADB} -N < after.sql").all(r"^(行|表)\t")
    why = "CREATE TABLEがなければ、MariaDBでもINSERTは取り消せる"
    world.control("mariadb-ddl-commits", "行" in other, why=why, seen="行は残らない")


def _held_back(world: World) -> None:
    world.section("held-back", "古いトランザクションを開いたままVACUUMする")
    world.file("size.sql", _SIZE, unseen=True)
    _fill(world)
    before = _table(world)
    why = "INSERTだけなら、古い行版はできない"
    seen = f"古い行版{before[0]}"
    fact = "postgresql-update-leaves-dead-rows"
    world.control(fact, _left_dead(before), why=why, seen=seen)
    world.file("hold.sql", _HOLD)
    vacuumed, full = _sizes(world.do(f"{_PSQL} -q -f hold.sql"))
    why = "更新前から続くトランザクションがあると、VACUUMは古い行版を消せない"
    seen, holds = f"古い行版{vacuumed[0]}", _removed((1000, 0), vacuumed)
    world.control("vacuum-removes-dead-rows", holds, why=why, seen=seen)
    why = "VACUUM FULLも古い行版を写すので、小さくならない"
    seen, holds = f"{vacuumed[1]} → {full[1]}バイト", _shrunk(vacuumed, full)
    world.control("vacuum-full-shrinks-the-file", holds, why=why, seen=seen)


def _empty_tail(world: World) -> None:
    world.section("empty-tail", "すべての行を消してからVACUUMする")
    before = _table(world)
    world.do(f"{_PSQL} -qc 'DELETE FROM item' -qc 'VACUUM item'")
    after = _table(world)
    why = "終わりまで空になったページだけは、VACUUMも返す"
    seen, holds = f"{before[1]} → {after[1]}バイト", _same_size(before, after)
    world.control("vacuum-keeps-the-file", holds, why=why, seen=seen)


def _longer_rows(world: World) -> None:
    world.section("longer-rows", "行を長くする")
    _fill_innodb(world)
    before, after = _update_innodb(world, "note = repeat('x', 2000)")
    why = "行が長くなれば、その場には収まらず、ファイルが大きくなる"
    seen = f"{before} → {after}バイト"
    world.control("mariadb-update-is-in-place", before == after, why=why, seen=seen)
