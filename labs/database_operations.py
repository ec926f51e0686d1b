"""What a database says when it is full, slow or blocked, and where to see why."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labs.harness import Background, Done, Lab, World, cut, servers
from labs.harness.client import Client

LAB = Lab(
    title="データベースの障害を起こして読む",
    chapter="database/operations",
    shows="接続の上限、遅い問い合わせ、ロック待ち、満杯を起こし、出る言葉と見る場所を確かめます。",
    facts={
        "reserved-slots-admit-the-administrator": (
            "PostgreSQLは、一般の利用者を断った後も、予約の分だけ管理者を入れる"
        ),
        "too-many-clients": "PostgreSQLは、max_connectionsに達すると管理者も断る",
        "mariadb-too-many-connections": (
            "MariaDBは、max_connectionsに達すると一般の利用者を1040で断る"
        ),
        "mariadb-one-extra": "MariaDBは、max_connectionsに達した後も、管理者を1本だけ入れる",
        "used-backend-keeps-memory": (
            "多くの表を使ったPostgreSQLの接続は、待機に戻っても、自分の匿名メモリを2倍以上持ち続ける"
        ),
        "estimate-needs-analyze": ("ANALYZEするまで、EXPLAINの見積もりの行数は実際と10倍以上違う"),
        "index-touches-fewer-pages": (
            "索引を作ると、同じ行を探すのに触るページが10分の1以下になる"
        ),
        "blocker-is-named": "pg_blocking_pidsは、待たせている接続を名指しする",
        "lock-timeout-cancels": "PostgreSQLのlock_timeoutは、ロックを待つ文を取り消す",
        "alter-blocks-readers": ("PostgreSQLでは、ALTER TABLEが待つ間、後から来たSELECTも待つ"),
        "lock-timeout-frees-the-queue": (
            "PostgreSQLでは、ALTER TABLEがlock_timeoutで諦めると、後ろのSELECTが進む"
        ),
        "mariadb-alter-blocks-readers": (
            "MariaDBでも、ALTER TABLEが待つ間、後から来たSELECTも待つ"
        ),
        "mariadb-1205-keeps-the-transaction": (
            "MariaDBの1205（既定）は、その文だけを取り消し、前のINSERTは残る"
        ),
        "idle-in-transaction-is-ended": (
            "idle_in_transaction_session_timeoutは、トランザクションを開いて黙る接続を切る"
        ),
        "disk-full-fails-the-statement": (
            "表のあるディスクが満杯になると、PostgreSQLはその文だけを失敗させ、動き続ける"
        ),
        "mariadb-table-is-full": (
            "表のあるディスクが満杯になると、MariaDBは1114でその文を失敗させ、動き続ける"
        ),
        "wal-full-stops-the-server": (
            "pg_walのあるディスクが満杯になると、PostgreSQLはPANICで止まる"
        ),
        "room-brings-it-back": ("空きを作って起動すると、PostgreSQLにはコミット済みの行だけが残る"),
    },
    needs=(*servers.POSTGRESQL, *servers.MARIADB),
    seconds=28,
    names=(r"xlogtemp\.(?P<pid>\d+)", r"\(PID (?P<pid>\d+)\)"),
)

_PSQL = servers.PSQL
_SECOND = f"{_PSQL} -p 5433"
_APP = "psql -U app postgres"
_MY = "mariadb -u root shop"
_SLOTS = "-c max_connections=5 -c superuser_reserved_connections={}"
_PLAIN = "-c autovacuum=off -c max_parallel_workers_per_gather=0"
_SETUP = """\
CREATE TABLE orders (id int, customer int, note text);
INSERT INTO orders SELECT n, n % 10000, repeat('x', 100) FROM generate_series(1, 100000) AS n;
CREATE TABLE item (id int PRIMARY KEY, price int);
INSERT INTO item VALUES (1, 100), (2, 100);
DO $$ BEGIN FOR n IN 1..400 LOOP
  EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, a int, b int)', n);
END LOOP; END $$;
"""
_SETUP_MY = """\
CREATE TABLE item (id int PRIMARY KEY, price int);
INSERT INTO item VALUES (1, 100), (2, 100);
"""
_TOUCH = """\
DO $$ BEGIN FOR n IN 1..400 LOOP
  EXECUTE format('SELECT count(*) FROM t%s WHERE id = 1', n);
END LOOP; END $$;"""
_EXPLAIN = f"{_PSQL} -c 'EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM orders WHERE customer = 42'"
_WAITS = (
    "SELECT pid, pg_blocking_pids(pid) AS blocked_by, wait_event_type, wait_event, "
    "left(query, 30) AS query FROM pg_stat_activity "
    "WHERE cardinality(pg_blocking_pids(pid)) > 0 ORDER BY query"
)
_PROCESSES = (
    "SELECT command, state, left(info, 30) AS query FROM information_schema.processlist "
    "WHERE state LIKE 'Waiting for table%' ORDER BY info"
)
_IDLE = """\
SET idle_in_transaction_session_timeout = '300ms';
{begin}UPDATE item SET price = price + 1 WHERE id = 1;
\\! sleep 2
SELECT price FROM item WHERE id = 1;
"""
_WATCH = """\
\\pset footer off
SELECT numbackends, xact_rollback, temp_files, deadlocks, blks_read, blks_hit,
  age(datfrozenxid) AS xid_age
FROM pg_stat_database JOIN pg_database USING (datname) WHERE datname = 'postgres' \\gx
SELECT relname, seq_scan, idx_scan, n_live_tup, n_dead_tup
FROM pg_stat_user_tables WHERE relname IN ('item', 'orders') ORDER BY relname;
"""
_STATUS = (
    "'Threads_connected', 'Max_used_connections', 'Connection_errors_max_connections', "
    "'Innodb_row_lock_waits', 'Slow_queries', 'Aborted_connects'"
)
_FILL = "SELECT repeat('x', 1000) FROM generate_series(1, 20000)"


@dataclass(frozen=True)
class _Three:
    """Three connections: one that holds, one that waits, one that comes later."""

    a: Client
    b: Client
    c: Client

    def close(self) -> None:
        """End them."""
        for client in (self.a, self.b, self.c):
            client.close()


def run(world: World) -> None:
    """Make each trouble once, and read what the server says about it."""
    world.section("servers", "サーバーを起動する")
    world.say("PostgreSQLの上限は5本、そのうち2本を管理者（superuser）に予約します。")
    _make_postgresql(world)
    server = servers.start_postgresql(world, settings=_SLOTS.format(2))
    _make_mariadb(world)
    world.do(f"{_PSQL} -At -c 'SHOW server_version'")
    world.do(f"{_MY} -N -e 'SELECT version()'")
    _slots(world)
    server.stop()
    _slots_mariadb(world)
    servers.start_postgresql(world, settings=_PLAIN)
    _set_up(world)
    _memory(world)
    _slow(world)
    _locks(world)
    _queue(world)
    _locks_mariadb(world)
    _idle(world)
    _watch(world)
    _disk_full(world)
    _disk_full_mariadb(world)
    _wal_full(world)


def _make_postgresql(world: World) -> None:
    servers.make_postgresql(world)
    server = servers.start_postgresql(world)
    world.ask(f"{_PSQL} -c 'CREATE ROLE app LOGIN'")
    server.stop()


def _make_mariadb(world: World) -> None:
    servers.make_mariadb(world)
    servers.start_mariadb(world, options="--max-connections=10")
    world.file("setup-mariadb.sql", _SETUP_MY, unseen=True)
    world.ask("mariadb -u root -e 'CREATE DATABASE shop; CREATE USER app'")
    world.ask(f"{_MY} < setup-mariadb.sql && mariadb -u root -e 'GRANT ALL ON shop.* TO app'")


def _set_up(world: World) -> None:
    world.file("setup.sql", _SETUP, unseen=True)
    world.ask(f"{_PSQL} -q -f setup.sql")


# Connections


def _hold(world: World, client: str, count: int) -> list[Background]:
    """Open connections that do nothing."""
    held = []
    for _ in range(count):
        one = world.start_unseen(rf"(echo '\! echo connected'; sleep 100) | {client}")
        one.wait_for("connected")
        held.append(one)
    return held


def _settle(world: World, count: int) -> None:
    """Wait until so many backends are left; asking the server would take a slot."""
    world.ask(r"ps -C postgres -o args | grep -c '\[local\]'", until=f"^{count}$", code=None)


def _close(held: list[Background]) -> None:
    for one in held:
        one.stop()


def _try(world: World, client: str) -> Done:
    return world.do(f"{client} -c 'SELECT 1'", code=None, show=cut("^psql: error: .*failed: "))


def _slots(world: World) -> None:
    world.section("connections", "PostgreSQLの接続を使い切る")
    world.say("一般の利用者appの接続を3本、開いたままにしました。4本目を開きます。")
    _settle(world, 0)
    held = _hold(world, _APP, 3)
    refused = _try(world, f"{_APP} -At")
    _settle(world, 3)
    world.say("管理者は入れます。誰が使っているかを、ここで数えます。")
    query = "SELECT usename, state, count(*) FROM pg_stat_activity WHERE usename IS NOT NULL"
    who = world.do(f'{_PSQL} -c "{query} AND pid <> pg_backend_pid() GROUP BY 1, 2"', code=None)
    holds = _reserved(refused) and _entered(who)
    world.fact("reserved-slots-admit-the-administrator", holds, seen="管理者は入れた")
    _settle(world, 3)
    world.say("予約の2本も、管理者の接続で埋めました。")
    held += _hold(world, _PSQL, 2)
    last = _try(world, f"{_PSQL} -At")
    world.fact("too-many-clients", _full(last), seen="管理者も断られた")
    _close(held)


def _entered(done: Done) -> bool:
    return done.code == 0


def _reserved(done: Done) -> bool:
    return done.has("FATAL:  remaining connection slots are reserved for")


def _full(done: Done) -> bool:
    return done.has("FATAL:  sorry, too many clients already")


def _slots_mariadb(world: World) -> None:
    world.section("connections-mariadb", "MariaDBの接続を使い切る")
    world.say("上限は10本です。appの接続を10本、開いたままにしました。")
    held = _hold(world, "mariadb -u app shop", 10)
    refused = _try_mariadb(world, "app")
    world.fact("mariadb-too-many-connections", _error(refused, "1040"), seen="11本目を断った")
    world.say("CONNECTION ADMINの権限を持つrootは入れます。")
    query = "SELECT user, command, count(*) FROM information_schema.processlist GROUP BY 1, 2"
    # The client refused last held the extra slot until the server was done with it.
    admitted = world.do(f'mariadb -u root -t -e "{query}"', until="root", code=None)
    held.append(_hold_extra(world))
    world.say("その1本も使うと、rootも断られます。")
    last = _try_mariadb(world, "root")
    holds = _entered(admitted) and last.has("1040 - Too many|ERROR 1040 ")
    world.fact("mariadb-one-extra", holds, seen="rootは1本だけ入れた")
    _close(held)


def _hold_extra(world: World) -> Background:
    """Open the administrator's extra connection as soon as the server has freed the slot."""
    typed = r"<(echo '\! echo connected'; sleep 100)"
    one = world.start_unseen(f"until mariadb -u root shop < {typed}; do sleep 0.1; done")
    one.wait_for("connected")
    return one


def _try_mariadb(world: World, user: str) -> Done:
    return world.do(f"mariadb -u {user} -N -e 'SELECT 1'", code=None)


def _error(done: Done, number: str) -> bool:
    return done.has(f"ERROR {number} ")


# Memory


def _memory(world: World) -> None:
    world.section("memory", "接続1本のメモリを測る")
    world.say("同じ接続を、つないだ直後と、400個の表を1回ずつ使った後に測ります。")
    world.say("Pss_Anonは、その接続だけが持つ匿名メモリです。共有バッファーは入りません。")
    before, after = _own(world, _TOUCH)
    seen = f"Pss_Anonは{before} → {after} kB（数字は毎回変わる）"
    world.fact("used-backend-keeps-memory", _kept(before, after), seen=seen)


def _own(world: World, statement: str) -> tuple[int, int]:
    """Return a backend's own memory before and after a statement, in kB."""
    client = world.client(f"stdbuf -oL {_PSQL} -At", "=# ")
    pid = client("SELECT pg_backend_pid();").strip()
    world.name("pid", pid)
    before = _anonymous(world, pid)
    client(statement)
    world.do(f'{_PSQL} -At -c "SELECT state FROM pg_stat_activity WHERE pid = {pid}"')
    after = _anonymous(world, pid)
    client.close()
    return before, after


def _anonymous(world: World, pid: str) -> int:
    shown = world.do(f"grep -E '^(Rss|Pss|Pss_Anon|Pss_Shmem):' /proc/{pid}/smaps_rollup")
    return int(shown.find(r"^Pss_Anon: +(\d+) kB")[1])


def _kept(before: int, after: int) -> bool:
    return after >= 2 * before


# Slow queries


def _slow(world: World) -> None:
    world.section("slow-query", "遅い問い合わせの実行計画を読む")
    world.say("10万行の表から、10行を探します。まだ統計も索引もありません。")
    first = world.do(_EXPLAIN)
    world.say("統計を集めます。")
    world.do(f"{_PSQL} -qc 'ANALYZE orders'")
    before = world.do(_EXPLAIN)
    seen = f"見積もり{_rows(first)[0]}行、実際{_rows(first)[1]}行"
    world.fact("estimate-needs-analyze", _wrong(first), seen=seen)
    world.say("見積もりは合いましたが、まだ全部を読んでいます。索引を作ります。")
    world.do(f"{_PSQL} -qc 'CREATE INDEX CONCURRENTLY ON orders (customer)'")
    after = world.do(_EXPLAIN)
    seen = f"触ったページは{_pages(before)} → {_pages(after)}"
    world.fact("index-touches-fewer-pages", _fewer(before, after), seen=seen)


def _rows(done: Done) -> tuple[int, int]:
    """Return the estimated and the actual rows of the plan's top node."""
    found = done.find(r"\(cost=\S+ rows=(\d+) .*?\(actual .*?rows=(\d+)")
    return int(found[1]), int(found[2])


def _wrong(done: Done) -> bool:
    estimated, actual = _rows(done)
    return max(estimated, actual) >= 10 * max(1, min(estimated, actual))


def _pages(done: Done) -> int:
    """Return how many pages the top node touched, in the cache or not."""
    line = done.find(r"Buffers: (shared.*)")[1]
    return sum(int(n) for n in re.findall(r"(?:hit|read)=(\d+)", line))


def _fewer(before: Done, after: Done) -> bool:
    return _pages(before) >= 10 * _pages(after)


# Locks


def _three(world: World, command: str, name: str, prompt: str) -> _Three:
    a, b, c = (world.client(command, f"{name}{letter}{prompt}") for letter in "ABC")
    return _Three(a, b, c)


def _pid(client: Client) -> str:
    return client("SELECT pg_backend_pid();").strip()


def _blockers(world: World, pid: str, want: str) -> str:
    """Show the waits once they are as they should be; return who blocks one backend."""
    world.do(f'{_PSQL} -c "{_WAITS}"', until=want)
    return world.ask(f"{_PSQL} -At -c 'SELECT pg_blocking_pids({pid})'").text.strip()


def _locks(world: World) -> None:
    world.section("lock-wait", "行のロックを待つ")
    a = world.client(f"stdbuf -oL {_PSQL} -At", "A=# ")
    b = world.client(f"stdbuf -oL {_PSQL} -At", "B=# ")
    world.say("AとBは、それぞれ開いたままの接続です。番号はプロセスIDです。")
    world.say("Aが1行を更新し、コミットせずにいます。Bが同じ行を更新します。")
    pids = [_pid(a), _pid(b)]
    world.name("pid", *pids)
    a("BEGIN;")
    a("UPDATE item SET price = 200 WHERE id = 1;")
    b.begin("UPDATE item SET price = 300 WHERE id = 1;")
    blockers = _blockers(world, pids[1], "transactionid")
    world.fact("blocker-is-named", _names(blockers, pids[0]), seen="BをAが待たせている")
    world.say("待たせているAは、何をしているのでしょうか。")
    world.do(f'{_PSQL} -c "SELECT state, query FROM pg_stat_activity WHERE pid = {pids[0]}"')
    world.say("Aがコミットすると、Bが進みます。")
    a("COMMIT;")
    b.finish()
    world.say("次は、Bに待つ時間の上限を付けます。")
    a("BEGIN;")
    a("UPDATE item SET price = 200 WHERE id = 1;")
    answer = _limited(b)
    world.fact("lock-timeout-cancels", _cancelled(answer), seen="Bの文が取り消された")
    b.close()
    a.close()


def _limited(client: Client) -> str:
    client("SET lock_timeout = '300ms';")
    return client("UPDATE item SET price = 300 WHERE id = 1;")


def _names(blockers: str, pid: str) -> bool:
    return blockers == f"{{{pid}}}"


def _cancelled(answer: str) -> bool:
    return "canceling statement due to lock timeout" in answer


def _queue(world: World) -> None:
    world.section("alter-queue", "ALTER TABLEの後ろに、SELECTが並ぶ")
    three = _three(world, f"stdbuf -oL {_PSQL} -At", "", "=# ")
    pids = [_pid(client) for client in (three.a, three.b, three.c)]
    world.name("pid", *pids)
    world.say("Aは表を読んだだけです。トランザクションは開いたままです。")
    three.a("BEGIN;")
    three.a("SELECT count(*) FROM item;")
    world.say("Bが列を足そうとし、その後でCが同じ表を読みます。")
    three.b.begin("ALTER TABLE item ADD COLUMN note text;")
    world.ask(f'{_PSQL} -c "{_WAITS}"', until="ALTER")
    three.c.begin("SELECT count(*) FROM item;")
    blockers = _blockers(world, pids[2], "(?s)ALTER.*SELECT")
    world.fact("alter-blocks-readers", _names(blockers, pids[1]), seen="CをBが待たせている")
    world.say("Aが終わると、B、Cの順に進みます。")
    three.a("COMMIT;")
    three.b.finish()
    three.c.finish()
    _give_up(world, three)
    three.close()


def _give_up(world: World, three: _Three) -> None:
    world.section("alter-timeout", "ALTER TABLEに、待つ時間の上限を付ける")
    three.a("BEGIN;")
    three.a("SELECT count(*) FROM item;")
    three.b("SET lock_timeout = '6s';")
    three.b.begin("ALTER TABLE item ADD COLUMN memo text;")
    world.ask(f'{_PSQL} -c "{_WAITS}"', until="ALTER")
    three.c.begin("SELECT count(*) FROM item;")
    world.do(f'{_PSQL} -c "{_WAITS}"', until="(?s)ALTER.*SELECT")
    world.say("Bが諦めるのを待ちます。")
    gave_up, read = three.b.finish(), three.c.finish()
    world.say("Aはまだ終わっていません。それでも、Cは読めました。")
    holds = _cancelled(gave_up) and read.strip() == "2"
    world.fact("lock-timeout-frees-the-queue", holds, seen="ALTERは諦め、SELECTは進んだ")
    three.a("COMMIT;")


def _locks_mariadb(world: World) -> None:
    world.section("lock-wait-mariadb", "MariaDBでロックを待つ")
    three = _three(world, f"{_MY} -N --batch --unbuffered --force", "MariaDB ", "> ")
    world.say("Aが1行を更新し、コミットせずにいます。Bは別の行を足してから、同じ行を更新します。")
    three.a("BEGIN;")
    three.a("UPDATE item SET price = 200 WHERE id = 1;")
    three.b("SET innodb_lock_wait_timeout = 8;")
    three.b("BEGIN;")
    three.b("INSERT INTO item VALUES (3, 100);")
    three.b.begin("UPDATE item SET price = 300 WHERE id = 1;")
    columns = "waiting_pid, waiting_query, blocking_pid, blocking_query, blocking_trx_started"
    world.do(
        f'{_MY} -E -e "SELECT {columns} FROM sys.innodb_lock_waits"', until="waiting_query: UPDATE"
    )
    answer = three.b.finish()
    world.say("時間切れの後も、Bのトランザクションは続いています。")
    left = three.b("SELECT count(*) FROM item WHERE id = 3;")
    holds = _kept_insert(answer, left)
    world.fact("mariadb-1205-keeps-the-transaction", holds, seen=f"前のINSERTは{left.strip()}行")
    for client in (three.a, three.b):
        client("ROLLBACK;")
    _queue_mariadb(world, three)


def _kept_insert(answer: str, left: str) -> bool:
    return "ERROR 1205" in answer and left.strip() == "1"


def _queue_mariadb(world: World, three: _Three) -> None:
    world.section("alter-queue-mariadb", "MariaDBでも、ALTER TABLEの後ろにSELECTが並ぶ")
    three.a("BEGIN;")
    three.a("SELECT count(*) FROM item;")
    three.b.begin("ALTER TABLE item ADD COLUMN note text;")
    world.ask(f'{_MY} -e "{_PROCESSES}"', until="ALTER")
    three.c.begin("SELECT count(*) FROM item;")
    waiting = world.do(f'{_MY} -t -e "{_PROCESSES}"', until="(?s)ALTER.*SELECT")
    world.fact("mariadb-alter-blocks-readers", _reader_waits(waiting), seen="SELECTも待っている")
    world.say("Aが終わると、どちらも進みます。")
    three.a("COMMIT;")
    three.b.finish()
    three.c.finish()
    three.close()


def _reader_waits(done: Done) -> bool:
    return done.has(r"Waiting for table metadata lock.*SELECT")


# Idle in transaction


def _idle(world: World) -> None:
    world.section("idle-in-transaction", "トランザクションを開いたまま黙る")
    done = _be_idle(world, "BEGIN;\n")
    world.fact("idle-in-transaction-is-ended", _ended(done), seen="接続が切られた")


def _be_idle(world: World, begin: str) -> Done:
    world.file("idle.sql", _IDLE.format(begin=begin))
    return world.do(f"{_PSQL} -At -f idle.sql", code=None)


def _ended(done: Done) -> bool:
    return done.has("terminating connection due to idle-in-transaction timeout")


# What to watch


def _watch(world: World) -> None:
    world.section("watch", "ふだん見る数字")
    world.say("PostgreSQLの、データベースと表の統計です。")
    world.file("watch.sql", _WATCH)
    world.do(f"{_PSQL} -f watch.sql")
    world.say("MariaDBの、起動してからの値です。")
    world.do(f'{_MY} -t -e "SHOW GLOBAL STATUS WHERE variable_name IN ({_STATUS})"')


# A full disk


def _small(world: World, user: str, size: str) -> None:
    """Mount a small file system and give it to a daemon."""
    world.do(f"mkdir small && mount -t tmpfs -o size={size},mode=755 none small")
    servers.own(world, user, "small")


def _unmount(world: World) -> None:
    world.ask("umount small && rmdir small")


def _fill(world: World, size: str) -> Done:
    _small(world, "postgres", size)
    world.do(f"{_PSQL} -qc \"CREATE TABLESPACE small LOCATION '{world.folder}/small'\"")
    world.do(f"{_PSQL} -qc 'CREATE TABLE log (line text) TABLESPACE small'")
    return world.do(f'{_PSQL} -c "INSERT INTO log {_FILL}"', code=None)


def _disk_full(world: World) -> None:
    world.section("disk-full", "表のあるディスクを満杯にする")
    world.say("8 MiBのファイルシステムをテーブルスペースにし、約20 MBを入れます。")
    done = _fill(world, "8m")
    world.do("df -h small")
    world.say("ほかの表への書き込みは、続けられます。")
    alive = world.do(f"{_PSQL} -At -c 'UPDATE item SET price = 1 WHERE id = 2'", code=None)
    world.say("空きを作ります。TRUNCATEは新しいファイルを作るので、残り0では失敗します。")
    world.do(f"{_PSQL} -qc 'TRUNCATE log'", code=None)
    world.do(f"{_PSQL} -qc 'DROP TABLE log'")
    world.do("df -h small")
    holds = _no_room(done) and _entered(alive)
    world.fact("disk-full-fails-the-statement", holds, seen="INSERTは失敗、ほかの表は更新できた")
    world.ask(f"{_PSQL} -c 'DROP TABLESPACE small'")
    _unmount(world)


def _no_room(done: Done) -> bool:
    return done.has(r"could not extend file .*No space left on device")


def _fill_mariadb(world: World, size: str) -> Done:
    _small(world, "mysql", size)
    world.do(f"{_MY} -e \"CREATE TABLE log (line text) DATA DIRECTORY='{world.folder}/small'\"")
    rows = "SELECT repeat('x', 1000) FROM seq_1_to_20000"
    return world.do(f'{_MY} -e "INSERT INTO log {rows}"', code=None)


def _disk_full_mariadb(world: World) -> None:
    world.section("disk-full-mariadb", "MariaDBの表のあるディスクを満杯にする")
    done = _fill_mariadb(world, "8m")
    world.say("空きが足りなくても、文言は「表が一杯」です。")
    alive = world.do(f"{_MY} -e 'UPDATE item SET price = 1 WHERE id = 2'", code=None)
    holds = _error(done, "1114") and _entered(alive)
    world.fact("mariadb-table-is-full", holds, seen="1114で失敗し、ほかの表は更新できた")
    world.ask(f"{_MY} -e 'DROP TABLE log'")
    _unmount(world)


def _wal(world: World, size: str) -> Background:
    """Put pg_wal of another cluster on a small file system and write more than it holds."""
    world.do(f"mkdir small && mount -t tmpfs -o size={size},mode=755 none small")
    servers.own(world, "postgres", "small")
    servers.make_postgresql(world, "pg2", f"--wal-segsize=1 --waldir={world.folder}/small/pg_wal")
    server = _start_second(world)
    world.do(f"{_SECOND} -qc 'CREATE TABLE log (line text)'")
    world.do(f'{_SECOND} -qc "INSERT INTO log VALUES (1)"')
    world.do(f'{_SECOND} -c "INSERT INTO log {_FILL}"', code=None)
    return server


def _start_second(world: World) -> Background:
    return servers.start_postgresql(world, "pg2", settings="2>> pg2.log", port=5433)


def _log(world: World) -> Done:
    """Show what the second server says about its end, without the times."""
    words = "PANIC|FATAL|abort|shut|ready"
    return world.do(f"grep -E '{words}' pg2.log | cut -d' ' -f5-")


def _wal_full(world: World) -> None:
    world.section("wal-full", "pg_walのあるディスクを満杯にする")
    world.say("別のクラスターを作り、pg_walだけを8 MiBのファイルシステムに置きました。")
    server = _wal(world, "8m")
    world.until(lambda: not server.running, "サーバーが止まるのを")
    world.say("サーバーのログです。どの行で、サーバー全体が止まったでしょうか。")
    log = _log(world)
    world.do("df -h small")
    world.fact("wal-full-stops-the-server", _panic(log), seen="PANICの後、サーバーが止まった")
    world.say("pg_walの中身には触らず、空きを増やして起動します。")
    world.do("mount -o remount,size=64m small")
    _start_second(world)
    left = world.do(f"{_SECOND} -At -c 'SELECT count(*) FROM log'", until="^[0-9]")
    world.fact("room-brings-it-back", left.text.strip() == "1", seen=f"{left.text.strip()}行")


def _panic(log: Done) -> bool:
    return log.has("PANIC: ")


def control(world: World) -> None:
    """Take each cause away: no reserve, room, no touch, no filter for the index, no waiter."""
    world.section("servers", "サーバーを起動する")
    world.say("今度は、PostgreSQLに管理者の予約がありません。")
    _make_postgresql(world)
    server = servers.start_postgresql(world, settings=_SLOTS.format(0))
    _make_mariadb(world)
    _no_reserve(world)
    server.stop()
    _more_slots(world)
    servers.start_postgresql(world, settings=_PLAIN)
    _set_up(world)
    _untouched(world)
    _other_plans(world)
    _nobody_waits(world)
    _nobody_waits_mariadb(world)
    _room(world)


def _no_reserve(world: World) -> None:
    world.section("no-reserve", "予約がないとき")
    _settle(world, 0)
    held = _hold(world, _APP, 5)
    world.say("appの接続を5本開きました。管理者がつなぎます。")
    done = _try(world, f"{_PSQL} -At")
    why = "予約がなければ、管理者も入れない"
    world.control(
        "reserved-slots-admit-the-administrator", _entered(done), why=why, seen="管理者も断られた"
    )
    held.pop().stop()
    _settle(world, 4)
    world.say("1本閉じてから、もう一度つなぎます。")
    done = _try(world, f"{_PSQL} -At")
    world.control("too-many-clients", _full(done), why="1本でも空けば入れる", seen="管理者は入れた")
    _close(held)


def _more_slots(world: World) -> None:
    world.section("more-slots", "MariaDBの上限を増やす")
    held = _hold(world, "mariadb -u app shop", 10)
    world.say("10本を使っています。CONNECTION ADMINのない利用者には、余分の1本がありません。")
    done = _try_mariadb(world, "app")
    why = "余分の1本は、CONNECTION ADMINのない利用者には使えない"
    world.control("mariadb-one-extra", _entered(done), why=why, seen="11本目のappは断られた")
    more = "SET GLOBAL max_connections = 12; SELECT @@max_connections"
    world.do(f"mariadb -u root -N -e '{more}'", until="^12", code=None)
    done = _try_mariadb(world, "app")
    why = "上限を動かしながら増やせば、入れる"
    world.control("mariadb-too-many-connections", _error(done, "1040"), why=why, seen="appも入れた")
    _close(held)


def _untouched(world: World) -> None:
    world.section("untouched", "同じ接続で、何も使わない")
    before, after = _own(world, "SELECT 1;")
    why = "メモリを増やすのは待機ではなく、使った表である"
    world.control(
        "used-backend-keeps-memory",
        _kept(before, after),
        why=why,
        seen=f"Pss_Anonは{before} → {after} kB",
    )


def _other_plans(world: World) -> None:
    world.section("other-plans", "統計が先にあり、索引が使えない条件で探す")
    world.do(f"{_PSQL} -qc 'ANALYZE orders'")
    before = world.do(_EXPLAIN)
    why = "統計があれば、見積もりは実際に近い"
    world.control(
        "estimate-needs-analyze",
        _wrong(before),
        why=why,
        seen=f"見積もり{_rows(before)[0]}行、実際{_rows(before)[1]}行",
    )
    world.do(f"{_PSQL} -qc 'CREATE INDEX CONCURRENTLY ON orders (customer)'")
    after = world.do(_EXPLAIN.replace("customer = 42", "customer + 0 = 42"))
    why = "列に計算を加えた条件には、この索引を使えない"
    world.control(
        "index-touches-fewer-pages",
        _fewer(before, after),
        why=why,
        seen=f"触ったページは{_pages(before)} → {_pages(after)}",
    )


def _nobody_waits(world: World) -> None:
    world.section("nobody-waits", "Aがコミットしてから、同じことをする")
    three = _three(world, f"stdbuf -oL {_PSQL} -At", "", "=# ")
    pids = [_pid(client) for client in (three.a, three.b, three.c)]
    world.name("pid", *pids)
    three.a("UPDATE item SET price = 200 WHERE id = 1;")
    answer = _limited(three.b)
    world.control(
        "lock-timeout-cancels",
        _cancelled(answer),
        why="待つロックがなければ進む",
        seen=answer.strip(),
    )
    blockers = world.do(f"{_PSQL} -At -c 'SELECT pg_blocking_pids({pids[1]})'").text.strip()
    world.control(
        "blocker-is-named", _names(blockers, pids[0]), why="待たせる相手がいない", seen=blockers
    )
    three.a("BEGIN;")
    three.a("SELECT count(*) FROM item;")
    three.c("SELECT count(*) FROM item;")
    blockers = world.do(f"{_PSQL} -At -c 'SELECT pg_blocking_pids({pids[2]})'").text.strip()
    why = "間にALTER TABLEがなければ、SELECTどうしは待たない"
    world.control("alter-blocks-readers", _names(blockers, pids[1]), why=why, seen=blockers)
    three.close()
    done = _be_idle(world, "")
    why = "トランザクションの外で黙っていても、この設定では切られない"
    world.control("idle-in-transaction-is-ended", _ended(done), why=why, seen="接続は続いた")


def _nobody_waits_mariadb(world: World) -> None:
    world.section("nobody-waits-mariadb", "MariaDBで、間にALTER TABLEを入れない")
    three = _three(world, f"{_MY} -N --batch --unbuffered --force", "MariaDB ", "> ")
    three.a("BEGIN;")
    three.a("SELECT count(*) FROM item;")
    three.c("SELECT count(*) FROM item;")
    waiting = world.do(f'{_MY} -t -e "{_PROCESSES}"')
    why = "ALTER TABLEがなければ、SELECTどうしは待たない"
    world.control(
        "mariadb-alter-blocks-readers", _reader_waits(waiting), why=why, seen="待つものはない"
    )
    three.close()


def _room(world: World) -> None:
    world.section("room", "広いファイルシステムに置く")
    done = _fill(world, "64m")
    world.control(
        "disk-full-fails-the-statement", _no_room(done), why="空きがあれば入る", seen="INSERTは成功"
    )
    world.ask(f"{_PSQL} -c 'DROP TABLE log' -c 'DROP TABLESPACE small'")
    _unmount(world)
    done = _fill_mariadb(world, "64m")
    world.control(
        "mariadb-table-is-full", _error(done, "1114"), why="空きがあれば入る", seen="INSERTは成功"
    )
    world.ask(f"{_MY} -e 'DROP TABLE log'")
    _unmount(world)
    _wal(world, "128m")
    world.control(
        "wal-full-stops-the-server",
        _panic(_log(world)),
        why="空きがあれば止まらない",
        seen="INSERTは成功、サーバーは動いている",
    )
