"""What each isolation level lets through, what locks cure, and what an old snapshot keeps."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from labs.harness import Lab, World, only, servers
from labs.harness.client import Client
from labs.harness.problem import LabError

LAB = Lab(
    title="2つのセッションを交互に進める",
    chapter="database/mvcc",
    shows="2つのトランザクションを1文ずつ進め、分離レベルごとの結果と、残る古い行版を見ます。",
    facts={
        "postgresql-write-skew": (
            "PostgreSQLのread committedとrepeatable readでは、"
            "2人とも当番を外れる（write skewが起きる）"
        ),
        "postgresql-serializable-refuses": (
            "PostgreSQLのserializableでは、片方だけが40001で取り消される"
        ),
        "mariadb-write-skew": (
            "MariaDBのREAD COMMITTEDとREPEATABLE READでは、"
            "2人とも当番を外れる（write skewが起きる）"
        ),
        "mariadb-serializable-locks": (
            "MariaDBのSERIALIZABLEでは、読んだ行の更新が待たされ、片方だけが1213で取り消される"
        ),
        "postgresql-refuses-lost-update": (
            "PostgreSQLのrepeatable readは、先にコミットされた行の更新を40001で断る"
        ),
        "mariadb-loses-update": (
            "MariaDBのREPEATABLE READは、innodb_snapshot_isolationがOFF（10.11の既定）なら、"
            "後の更新で先の更新を上書きする"
        ),
        "for-update-keeps-both": (
            "PostgreSQLの既定でもMariaDBの既定でも、"
            "SELECT … FOR UPDATEで読めば2つの引き出しが両方残る"
        ),
        "deadlock-cancels-one": (
            "PostgreSQLもMariaDBも、互いを待つ2つのトランザクションの片方だけを取り消す"
        ),
        "postgresql-snapshot-keeps-dead-rows": (
            "PostgreSQLでは、古いスナップショットが残る間はVACUUMが古い行版を消せず、終われば消せる"
        ),
        "mariadb-snapshot-grows-history": (
            "MariaDB（InnoDB）では、古いスナップショットが残る間は"
            "history list lengthが増え、終われば減る"
        ),
    },
    needs=(*servers.POSTGRESQL, *servers.MARIADB),
    seconds=14,
    limit=120,
    names=(r"\b[Pp]rocess (?P<pid>\d+)\b", r"\btransaction (?P<xid>\d+)\b"),
)

_TABLES = """\
CREATE TABLE doctor (name varchar(10) PRIMARY KEY, on_call int);
INSERT INTO doctor VALUES ('alice', 1), ('bob', 1);
CREATE TABLE account (id int PRIMARY KEY, balance int);
INSERT INTO account VALUES (1, 100), (2, 100);
CREATE TABLE item (id int PRIMARY KEY, price int);
"""
_RESET = "UPDATE doctor SET on_call = 1; UPDATE account SET balance = 100;"
_ON_CALL = "SELECT count(*) FROM doctor WHERE on_call = 1"
_BALANCE = "SELECT balance FROM account WHERE id = 1"
_REFUSED = re.compile(r"^ERROR", re.M)


@dataclass(frozen=True)
class _Server:
    """One product: how it is spoken to, and how it says that somebody waits for a lock."""

    name: str
    query: str
    session: str
    prompt: str
    waits: str

    def ask(self, sql: str) -> str:
        """Return the command that asks one question."""
        return f'{self.query} "{sql}"'


_PG = _Server(
    "PostgreSQL",
    f"{servers.PSQL} -At -c",
    f"stdbuf -oL {servers.PSQL} -At",
    "=# ",
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
)
_MY = _Server(
    "MariaDB",
    "mariadb -u root shop -N -e",
    "mariadb -u root shop -N --batch --unbuffered --force",
    "> ",
    # Not INNODB_TRX: its cache stays old while it is asked more often than every 0.1 s.
    "SELECT variable_value FROM information_schema.global_status"
    " WHERE variable_name = 'Innodb_row_lock_current_waits'",
)


@dataclass(frozen=True)
class _Pair:
    """Two sessions on one server, each driven one statement at a time."""

    world: World
    server: _Server
    a: Client
    b: Client

    def both(self, *statements: str) -> None:
        """Give the same statements to both, in turn."""
        for statement in statements:
            self.a(statement)
            self.b(statement)

    def wait(self) -> None:
        """Wait until the server says that one session waits for a lock."""
        self.world.do(self.server.ask(self.server.waits), until="^1$")

    def close(self) -> None:
        """End both sessions."""
        self.a.close()
        self.b.close()


def run(world: World) -> None:
    """Drive two sessions through each anomaly and its cure."""
    _start(world)
    _write_skew(world)
    _serializable(world)
    _lost_update(world)
    _for_update(world)
    _deadlock(world)
    _old_rows(world)
    _history(world)


def _start(world: World) -> None:
    world.section("servers", "2つのサーバーを起動する")
    world.say("当番の医師が2人、残高100の口座が2つあります。")
    world.file("tables.sql", _TABLES)
    servers.make_postgresql(world)
    servers.start_postgresql(world, settings="-c autovacuum=off")
    world.ask(f"{servers.PSQL} -q -f tables.sql")
    servers.make_mariadb(world)
    servers.start_mariadb(world)
    world.ask("mariadb -u root -e 'CREATE DATABASE shop' && mariadb -u root shop < tables.sql")
    world.do(_PG.ask("SHOW server_version"))
    world.do(_MY.ask("SELECT version()"))
    world.say("AとBは、それぞれ開いたままの接続です。書いた順に1文ずつ進めます。")


def _pair(world: World, server: _Server, level: str, other: str = "") -> _Pair:
    """Open two sessions and begin a transaction in each."""
    world.ask(server.ask(_RESET))
    names = [f"{server.name} {name}{server.prompt}" for name in "AB"]
    a, b = (world.client(server.session, name) for name in names)
    for client, isolation in ((a, level), (b, other or level)):
        if isolation:
            client(
                f"SET SESSION {_characteristics(server)}TRANSACTION ISOLATION LEVEL {isolation};"
            )
        client("BEGIN;")
    return _Pair(world, server, a, b)


def _characteristics(server: _Server) -> str:
    return "CHARACTERISTICS AS " if server is _PG else ""


# Write skew


def _leave(pair: _Pair, lock: str = "") -> list[str]:
    """Let both look at the number on call, leave when there are two, and commit."""
    pair.world.say("2人とも、当番が2人いることを確かめてから、自分だけを外します。")
    pair.both(f"{_ON_CALL}{lock};")
    answers = [pair.a(_off("alice")), pair.b(_off("bob"))]
    return [*answers, pair.a("COMMIT;"), pair.b("COMMIT;")]


def _off(name: str) -> str:
    return f"UPDATE doctor SET on_call = 0 WHERE name = '{name}';"


def _left(world: World, server: _Server) -> int:
    """Show and return how many doctors are on call."""
    return int(world.do(server.ask(_ON_CALL)).text)


def _refusals(answers: list[str]) -> int:
    return sum(bool(_REFUSED.search(answer)) for answer in answers)


def _skewed(world: World, server: _Server, level: str) -> int:
    """Return how many are on call after two overlapping transactions."""
    pair = _pair(world, server, level)
    _leave(pair)
    pair.close()
    return _left(world, server)


def _write_skew(world: World) -> None:
    levels = ("READ COMMITTED", "REPEATABLE READ")
    for server, fact in ((_PG, "postgresql-write-skew"), (_MY, "mariadb-write-skew")):
        name = server.name.lower()
        world.section(f"write-skew-{name}", f"{server.name}で、2人が同時に当番を外れる")
        left = [_skewed(world, server, level) for level in levels]
        seen = "、".join(f"{level}で{n}人" for level, n in zip(levels, left, strict=True))
        world.fact(fact, _nobody(left), seen=f"残った当番は{seen}")


def _nobody(left: list[int]) -> bool:
    return not any(left)


def _serializable(world: World) -> None:
    world.section("serializable-postgresql", "PostgreSQLのSERIALIZABLEで、同じことをする")
    pair = _pair(world, _PG, "SERIALIZABLE")
    answers = _leave(pair)
    state = pair.b("\\echo :LAST_ERROR_SQLSTATE")
    pair.close()
    left = _left(world, _PG)
    seen = f"取り消し{_refusals(answers)}、SQLSTATE {state}、当番{left}人"
    holds = _one_refused(answers) and state == "40001"
    world.fact("postgresql-serializable-refuses", holds, seen=seen)
    world.section("serializable-mariadb", "MariaDBのSERIALIZABLEで、同じことをする")
    pair = _pair(world, _MY, "SERIALIZABLE")
    answers = _leave_waiting(pair)
    pair.close()
    left = _left(world, _MY)
    seen = f"取り消し{_refusals(answers)}、当番{left}人"
    world.fact("mariadb-serializable-locks", _one_deadlock(answers), seen=seen)


def _one_refused(answers: list[str]) -> bool:
    return _count(answers, "could not serialize access due to read/write dependencies") == 1


def _one_deadlock(answers: list[str]) -> bool:
    return _count(answers, "ERROR 1213 (40001)") == 1


def _count(answers: list[str], text: str) -> int:
    return sum(text in answer for answer in answers)


def _leave_waiting(pair: _Pair) -> list[str]:
    """Do as _leave does, where the first update has to wait for the other's read."""
    pair.both(f"{_ON_CALL};")
    pair.world.say("Aの更新は、Bが読んだ行の共有ロックを待ちます。")
    pair.a.begin(_off("alice"))
    pair.wait()
    return _cross(pair, _off("bob"))


def _cross(pair: _Pair, statement: str) -> list[str]:
    """Let B wait for A, which waits for B already; return what both were told."""
    pair.world.say("Bも更新すると、互いを待ちます。Bの答え、Aの答えの順に並べます。")
    pair.b.begin(statement)
    answers = [pair.b.finish(), pair.a.finish()]
    return [*answers, pair.a("COMMIT;"), pair.b("COMMIT;")]


# Lost update


def _withdraw(pair: _Pair) -> str:
    """Let both read the balance and write back what they computed; return B's last answer."""
    pair.world.say("どちらも残高を読み、引いた額を書き戻します。Aは30、Bは50を引きます。")
    read = [int(client(f"{_BALANCE};").split()[-1]) for client in (pair.a, pair.b)]
    pair.a(_write(read[0] - 30))
    pair.a("COMMIT;")
    answer = pair.b(_write(read[1] - 50))
    pair.b("COMMIT;")
    pair.close()
    return answer


def _write(balance: int) -> str:
    return f"UPDATE account SET balance = {balance} WHERE id = 1;"


def _balance(world: World, server: _Server) -> int:
    """Show and return what is left on the account."""
    return int(world.do(server.ask(_BALANCE)).text)


def _lost_update(world: World) -> None:
    world.section("lost-update-postgresql", "PostgreSQLのREPEATABLE READで、読んで書き戻す")
    answer = _withdraw(_pair(world, _PG, "REPEATABLE READ"))
    seen = f"Bの更新は拒否、残高{_balance(world, _PG)}"
    world.fact("postgresql-refuses-lost-update", _concurrent(answer), seen=seen)
    world.section("lost-update-mariadb", "MariaDBのREPEATABLE READで、読んで書き戻す")
    world.do("mariadb -u root -N -e 'SELECT @@innodb_snapshot_isolation'")
    world.do("mariadb -u root -e 'SET GLOBAL innodb_snapshot_isolation = OFF'")
    _withdraw(_pair(world, _MY, "REPEATABLE READ"))
    left = _balance(world, _MY)
    seen = f"残高{left}（両方が効けば20）"
    world.fact("mariadb-loses-update", _lost(left), seen=seen)


def _concurrent(answer: str) -> bool:
    return "could not serialize access due to concurrent update" in answer


def _lost(balance: int) -> bool:
    return balance == 50


def _withdraw_locked(pair: _Pair) -> None:
    """Do as _withdraw does, but read with FOR UPDATE: B has to wait."""
    query = f"{_BALANCE} FOR UPDATE;"
    read = int(pair.a(query))
    pair.b.begin(query)
    pair.world.say("Bの読み出しは、Aのロックを待っています。Aが先に終えます。")
    pair.wait()
    pair.a(_write(read - 30))
    pair.a("COMMIT;")
    pair.world.say("Bに、Aが書いた後の残高が返ります。")
    read = int(pair.b.finish())
    pair.b(_write(read - 50))
    pair.b("COMMIT;")
    pair.close()


def _for_update(world: World) -> None:
    world.section("for-update", "SELECT … FOR UPDATEで読む（分離レベルは既定のまま）")
    left = []
    for server in (_PG, _MY):
        _withdraw_locked(_pair(world, server, ""))
        left.append(_balance(world, server))
    seen = f"残高は{_PG.name}で{left[0]}、{_MY.name}で{left[1]}"
    world.fact("for-update-keeps-both", _kept(left), seen=seen)


def _kept(left: list[int]) -> bool:
    return all(balance == 20 for balance in left)


# Deadlock


def _deadlock(world: World) -> None:
    world.section("deadlock", "2つの行を、逆の順にロックする")
    refused = [_opposite(_pair(world, server, "")) for server in (_PG, _MY)]
    seen = f"取り消しは{_PG.name}で{refused[0]}、{_MY.name}で{refused[1]}"
    world.fact("deadlock-cancels-one", _one_each(refused), seen=seen)


def _opposite(pair: _Pair) -> int:
    """Lock two rows in opposite orders and return how many were cancelled."""
    pair.a(_take(1))
    pair.b(_take(2))
    pair.a.begin(_take(2))
    pair.wait()
    answers = _cross(pair, _take(1))
    pair.close()
    return _refusals(answers)


def _take(account: int) -> str:
    return f"UPDATE account SET balance = balance - 10 WHERE id = {account};"


def _one_each(refused: list[int]) -> bool:
    return refused == [1, 1]


# Old rows

_KEPT = re.compile(r"(\d+) are dead but not yet removable")
_OLDEST = (
    "SELECT state, age(backend_xmin) FROM pg_stat_activity WHERE state = 'idle in transaction'"
)
_HISTORY = "mariadb -u root -N -e \"SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'\""
_PURGED = "mariadb -u root -e 'SET GLOBAL innodb_max_purge_lag_wait = 0'"


def _reader(world: World, server: _Server, level: str) -> Client:
    """Open a transaction that reads once and then does nothing."""
    a = world.client(server.session, f"{server.name} A{server.prompt}")
    a(f"SET SESSION {_characteristics(server)}TRANSACTION ISOLATION LEVEL {level};")
    a("BEGIN;")
    a(f"{_BALANCE};")
    return a


def _hold_rows(world: World, level: str) -> tuple[int, int]:
    """Return the dead rows that VACUUM left while a reader was open, and afterwards."""
    fill = "INSERT INTO item SELECT n, 100 FROM generate_series(1, 1000) AS n"
    world.do(_PG.ask(fill))
    reader = _reader(world, _PG, level)
    for _ in range(3):
        world.do(_PG.ask("UPDATE item SET price = price + 1"))
    world.do(_PG.ask(_OLDEST))
    held = _vacuum(world)
    reader("COMMIT;")
    reader.close()
    return held, _vacuum(world)


def _vacuum(world: World) -> int:
    """Vacuum the table and return the dead rows left (the statistics' count may come late)."""
    done = world.do(_PG.ask("VACUUM (VERBOSE) item"), show=only(r"^tuples:|cutoff"))
    kept = _KEPT.search(done.text)
    if not kept:
        raise LabError(f"VACUUMが、残した行版の数を言いません:\n{done.text}")
    return int(kept[1])


def _old_rows(world: World) -> None:
    world.section("old-rows", "PostgreSQLで、開いたままのトランザクションとVACUUM")
    held, after = _hold_rows(world, "REPEATABLE READ")
    seen = f"VACUUM後の古い行版は、開いている間{held}、終わった後{after}"
    world.fact("postgresql-snapshot-keeps-dead-rows", _held(held, after), seen=seen)


def _held(held: int, after: int) -> bool:
    return held == 3000 and after == 0


def _length(world: World) -> int:
    return int(world.do(_HISTORY).text.split()[1])


def _hold_history(
    world: World, level: str, purge: Callable[[World], object]
) -> tuple[int, int, int]:
    """Return the history's length before 200 updates, after them, and after the reader."""
    _purge(world)
    before = _length(world)
    reader = _reader(world, _MY, level)
    world.file("updates.sql", f"{_take(1)}\n" * 200, unseen=True)
    world.do("mariadb -u root shop < updates.sql")
    purge(world)
    held = _length(world)
    reader("COMMIT;")
    reader.close()
    _purge(world)
    return before, held, _length(world)


def _purge(world: World) -> None:
    """Wait until purge has ended, which it never does under an old snapshot."""
    world.do(_PURGED)


def _settle(world: World) -> None:
    """Wait until purge has done what it can: the length stays the same for a while."""
    lengths: list[str] = []

    def same() -> bool:
        lengths.append(world.ask(f"sleep 0.2; {_HISTORY}").text)
        return len(lengths) > 5 and len(set(lengths[-5:])) == 1

    world.until(same, "purgeが落ち着く")


def _history(world: World) -> None:
    world.section("history", "MariaDBで、開いたままのトランザクションとpurge")
    world.say("innodb_max_purge_lag_wait = 0は、purgeが終わるまで待つ指示です。")
    world.say("updates.sqlは、1行を更新してコミットする文を200個並べたものです。")
    before, held, after = _hold_history(world, "REPEATABLE READ", _settle)
    seen = f"{before} → {held}（開いている間） → {after}（終わった後）"
    world.fact("mariadb-snapshot-grows-history", _grew(before, held, after), seen=seen)


def _grew(before: int, held: int, after: int) -> bool:
    return held - before >= 200 > after


# Negative control


def control(world: World) -> None:
    """Take the causes away: locks, one level among two, other settings, one order, no snapshot."""
    _start(world)
    _locked_readers(world)
    _mixed_levels(world)
    _autocommit_reads(world)
    _other_settings(world)
    _same_order(world)
    _no_snapshot(world)


def _locked_readers(world: World) -> None:
    world.section("locked-readers", "当番の人数を、FOR UPDATEで読む")
    why = "読むときにロックを取れば、後の人は先の人の更新を見てから決める"
    for server, fact in ((_PG, "postgresql-write-skew"), (_MY, "mariadb-write-skew")):
        left = _locked(_pair(world, server, "READ COMMITTED"))
        world.control(fact, _nobody([left]), why=why, seen=f"{server.name}の当番は{left}人")


def _locked(pair: _Pair) -> int:
    """Read with locks; B leaves only if two are on call. Return how many are."""
    query = "SELECT name FROM doctor WHERE on_call = 1 FOR UPDATE;"
    pair.a(query)
    pair.b.begin(query)
    pair.wait()
    pair.a(_off("alice"))
    pair.a("COMMIT;")
    pair.world.say("Bに見えた当番は1人なので、Bは外れません。")
    if len(pair.b.finish().split()) == 2:
        pair.b(_off("bob"))
    pair.b("COMMIT;")
    pair.close()
    return _left(pair.world, pair.server)


def _mixed_levels(world: World) -> None:
    world.section("mixed-levels", "PostgreSQLで、片方だけをSERIALIZABLEにする")
    pair = _pair(world, _PG, "SERIALIZABLE", "REPEATABLE READ")
    answers = _leave(pair)
    pair.close()
    left = _left(world, _PG)
    why = "相手がREPEATABLE READなら、SERIALIZABLEのトランザクションも守られない"
    holds, seen = _one_refused(answers), f"取り消し{_refusals(answers)}、当番{left}人"
    world.control("postgresql-serializable-refuses", holds, why=why, seen=seen)


def _autocommit_reads(world: World) -> None:
    world.section("autocommit-reads", "MariaDBのSERIALIZABLEで、読んでからBEGINする")
    pair = _pair(world, _MY, "SERIALIZABLE")
    pair.both("ROLLBACK;")
    world.say("開いたトランザクションを閉じました。次の読み出しは、1文だけのトランザクションです。")
    pair.both(f"{_ON_CALL};", "BEGIN;")
    answers = [pair.a(_off("alice")), pair.b(_off("bob"))]
    answers += [pair.a("COMMIT;"), pair.b("COMMIT;")]
    pair.close()
    left = _left(world, _MY)
    why = "autocommitのSELECTは、SERIALIZABLEでもロックを残さない"
    holds, seen = _one_deadlock(answers), f"取り消し{_refusals(answers)}、当番{left}人"
    world.control("mariadb-serializable-locks", holds, why=why, seen=seen)


def _other_settings(world: World) -> None:
    world.section("read-committed", "PostgreSQLを既定（read committed）に戻し、ロックせずに読む")
    answer = _withdraw(_pair(world, _PG, ""))
    lost = [_balance(world, _PG)]
    why = "read committedは、先の更新を断らずに上書きする"
    holds, seen = _concurrent(answer), f"残高{lost[0]}"
    world.control("postgresql-refuses-lost-update", holds, why=why, seen=seen)
    _withdraw(_pair(world, _MY, ""))
    lost.append(_balance(world, _MY))
    why = "FOR UPDATEを付けなければ、どちらの既定でも片方の引き出しが消える"
    seen = f"残高は{_PG.name}で{lost[0]}、{_MY.name}で{lost[1]}"
    world.control("for-update-keeps-both", _kept(lost), why=why, seen=seen)
    world.section("snapshot-isolation", "MariaDBで、innodb_snapshot_isolationを有効にする")
    world.do("mariadb -u root -e 'SET GLOBAL innodb_snapshot_isolation = ON'")
    _withdraw(_pair(world, _MY, "REPEATABLE READ"))
    left = _balance(world, _MY)
    why = "有効にすると、先にコミットされた行の更新を1020で断る"
    world.control("mariadb-loses-update", _lost(left), why=why, seen=f"残高{left}")


def _same_order(world: World) -> None:
    world.section("same-order", "2つの行を、同じ順にロックする")
    refused = [_ordered(_pair(world, server, "")) for server in (_PG, _MY)]
    why = "ロックの順が同じなら、待つだけで輪にならない"
    seen = f"取り消しは{_PG.name}で{refused[0]}、{_MY.name}で{refused[1]}"
    world.control("deadlock-cancels-one", _one_each(refused), why=why, seen=seen)


def _ordered(pair: _Pair) -> int:
    """Lock two rows in the same order and return how many were cancelled."""
    answers = [pair.a(_take(1))]
    pair.b.begin(_take(1))
    pair.wait()
    answers += [pair.a(_take(2)), pair.a("COMMIT;"), pair.b.finish(), pair.b(_take(2))]
    answers.append(pair.b("COMMIT;"))
    pair.close()
    return _refusals(answers)


def _no_snapshot(world: World) -> None:
    world.section("no-snapshot", "READ COMMITTEDのトランザクションを開いたままにする")
    why = "READ COMMITTEDは1文ごとにスナップショットを手放すので、待機中は妨げない"
    held, after = _hold_rows(world, "READ COMMITTED")
    fact, seen = "postgresql-snapshot-keeps-dead-rows", f"VACUUM後の古い行版は{held}"
    world.control(fact, _held(held, after), why=why, seen=seen)
    before, length, after = _hold_history(world, "READ COMMITTED", _purge)
    fact, seen = "mariadb-snapshot-grows-history", f"{before} → {length}"
    world.control(fact, _grew(before, length, after), why=why, seen=seen)
