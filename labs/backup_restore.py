"""What a dump holds, and how a dropped table comes back from a backup and the logs."""

from __future__ import annotations

from labs.harness import Background, Lab, World, both, cut, only, servers

LAB = Lab(
    title="バックアップを取り、消した表を復元する",
    chapter="database/replication-and-backup",
    shows="書き込み中のダンプの一貫性と、DROP TABLEの直前まで戻す手順を見ます。",
    facts={
        "pg-dump-is-one-moment": (
            "pg_dumpは、途中で振替がコミットされても、始めた時点の残高を写す"
        ),
        "pg-dump-restores": "pg_dumpの出力から、空のデータベースに同じ行を戻せる",
        "pg-dump-leaves-out-roles": "pg_dumpの出力には、ロールを作る文が入らない",
        "base-backup-alone-is-old": (
            "ベースバックアップのWALだけで起動すると、その後に入れた行はない"
        ),
        "pitr-brings-the-table-back": (
            "ベースバックアップとアーカイブしたWALから、消した表と、その直前までの行が戻る"
        ),
        "pitr-drops-what-came-later": "目標時刻より後にコミットした行は、戻らない",
        "pitr-starts-a-timeline": "PITRを終えると、タイムライン2が始まる",
        "missing-wal-stops-recovery": (
            "目標までのWALがアーカイブに足りないと、回復はFATALで終わる"
        ),
        "mariadb-dump-is-one-moment": (
            "mariadb-dump --single-transactionは、"
            "途中で振替がコミットされても、始めた時点の残高を写す"
        ),
        "binlog-replays-until-the-mistake": (
            "MariaDBのダンプに、DROP TABLEの直前までのbinlogを適用すると、消した表が戻る"
        ),
    },
    needs=(*servers.POSTGRESQL, *servers.MARIADB),
    seconds=12,
)

_P = servers.PSQL
_R = f"{servers.PSQL} -p 5433"
_MARIADB = "mariadb -u root"
_ARCHIVE = "test ! -f ../archive/%f && cp %p ../archive/%f"
_SETTINGS = f"-c archive_mode=on -c 'archive_command={_ARCHIVE}'"
_BANK = """\
CREATE TABLE a_account (balance int);
CREATE TABLE m_filler (note varchar(1000));
CREATE TABLE z_account (balance int);
INSERT INTO a_account VALUES (1000);
INSERT INTO z_account VALUES (0);
"""
_TRANSFER = """\
BEGIN;
UPDATE a_account SET balance = balance - 300;
UPDATE z_account SET balance = balance + 300;
COMMIT;
"""
_TOTAL = "SELECT a.balance, z.balance, a.balance + z.balance FROM a_account AS a, z_account AS z"
_NOTES = "SELECT string_agg(note, ' ' ORDER BY id) FROM orders"
_LOG = both(
    cut(r"(?<=commit )[^\n]*", r"20\d\d-\S+ [\d:.+]+"),
    only(
        "point-in-time|restored log|recovery stopping|last completed"
        "|FATAL:  recovery|archive recovery"
    ),
)


def run(world: World) -> None:
    """Dump while others write, then bring back a dropped table."""
    _dump(world)
    _roles(world)
    _base(world)
    _alone(world)
    _recover(world)
    _short(world)
    _mariadb_dump(world)
    _binlog(world)


# Dumps


def _start(world: World) -> None:
    servers.make_postgresql(world, options="--wal-segsize=1")
    servers.home(world, "postgres", "archive")
    servers.start_postgresql(world, settings=_SETTINGS)
    world.file("transfer.sql", _TRANSFER, unseen=True)
    world.file("bank.sql", _BANK, unseen=True)
    fill = "INSERT INTO m_filler SELECT repeat('x', 1000) FROM generate_series(1, 3000)"
    world.ask(f'createdb -U postgres bank && {_P} -q -d bank -f bank.sql -c "{fill}"')


def _dump(world: World) -> None:
    world.section("pg-dump", "pg_dumpの途中で、振替をコミットする")
    world.say("口座a_accountに1000、z_accountに0があります。合計は、いつも1000です。")
    _start(world)
    world.do(f"{_P} -At -c 'SHOW server_version'")
    world.do("cat transfer.sql")
    world.say("dump.shは、pg_dumpの出力を20000バイトだけ読み、振替をしてから残りを読みます。")
    transfer = f"{_P} -q -d bank -f transfer.sql"
    _dump_and_transfer(world, "pg_dump -U postgres bank", transfer)
    world.say("元のデータベースと、空のデータベースに戻したものを比べます。")
    world.do(f'{_P} -d bank -At -c "{_TOTAL}"')
    balances = _restore(world)
    seen = f"戻した残高は{balances}"
    world.fact("pg-dump-is-one-moment", balances == "1000|0|1000", seen=seen)
    rows = _fillers(world)
    world.fact("pg-dump-restores", len(set(rows)) == 1, seen=f"m_fillerは、どちらも{rows[0]}行")


def _dump_and_transfer(world: World, dump: str, transfer: str) -> None:
    lines = ("head -c 20000 > dump.sql", transfer, "cat >> dump.sql")
    world.file("dump.sh", f"{dump} | {{\n" + "".join(f"  {x}\n" for x in lines) + "}\n")
    world.do("bash dump.sh")


def _restore(world: World) -> str:
    world.do("createdb -U postgres restored")
    world.do(f"{_P} -q -d restored -v ON_ERROR_STOP=1 -f dump.sql > restore.log 2>&1", code=None)
    return world.do(f'{_P} -d restored -At -c "{_TOTAL}"', code=None).text.strip()


def _fillers(world: World) -> list[str]:
    count = "-At -c 'SELECT count(*) FROM m_filler'"
    return [world.do(f"{_P} -d {name} {count}").text.strip() for name in ("bank", "restored")]


def _roles(world: World) -> None:
    world.section("roles", "ロールを作る文を、ダンプの中で探す")
    world.ask(f"{_P} -q -d bank -c 'CREATE ROLE app' -c 'ALTER TABLE a_account OWNER TO app'")
    world.say("表a_accountの持ち主を、ロールappにしておきました。")
    missing = _has_no_role(world, "pg_dump -U postgres bank")
    seen = "OWNER TOはあり、CREATE ROLEはない"
    world.fact("pg-dump-leaves-out-roles", missing, seen=seen)


def _has_no_role(world: World, dump: str) -> bool:
    done = world.do(f"{dump} | grep -E '(CREATE ROLE|OWNER TO) app'", code=None)
    return not done.has("CREATE ROLE app")


# Point in time, PostgreSQL


def _base(world: World) -> None:
    world.section("base-backup", "ベースバックアップを取り、WALをアーカイブする")
    world.do(f"{_P} -At -c 'SHOW archive_command'")
    _order(world, "CREATE TABLE orders (id serial, note text)", "before-backup")
    _back_up(world)
    _order(world, "", "after-backup")
    _archive(world)
    world.say("いまの時刻をtarget.txtに残し、それから表を消します。")
    world.do(f"{_P} -At -c 'SELECT clock_timestamp()' > target.txt")
    world.do(f"{_P} -c 'DROP TABLE orders'")
    world.do(f"{_P} -c 'CREATE TABLE later (note text)'")
    _archive(world)
    world.do("ls archive | tail -n 3")


def _order(world: World, first: str, note: str) -> None:
    if first:
        world.do(f"{_P} -c '{first}'")
    world.do(f"{_P} -c \"INSERT INTO orders (note) VALUES ('{note}')\"")


def _back_up(world: World) -> None:
    world.do("pg_basebackup -h /run/postgresql -U postgres -D base -c fast")
    servers.own(world, "postgres", "base")


def _archive(world: World) -> None:
    """Close the WAL file of now, and wait until it is in the archive."""
    current = f"{_P} -At -c 'SELECT pg_walfile_name(pg_current_wal_lsn())'"
    name = world.ask(current).text.strip()
    world.do(f"{_P} -At -c 'SELECT pg_switch_wal()'")
    world.ask(f"ls archive/{name}", until=name, code=None)


def _alone(world: World) -> None:
    world.section("base-alone", "ベースバックアップだけで起動する")
    notes, _ = _start_alone(world)
    world.fact("base-backup-alone-is-old", _is_old(notes), seen=f"行は{notes}だけ")


def _is_old(notes: str) -> bool:
    return notes == "before-backup"


def _start_alone(world: World) -> tuple[str, bool]:
    """Start a copy of the base backup; return its rows and whether a timeline began."""
    world.do("cp -a base alone")
    server = servers.start_postgresql(world, "alone", _restored("alone"), 5433)
    notes = _notes(world)
    history = _history(world, "alone")
    _stop(world, "alone", server)
    return notes, history


def _restored(name: str) -> str:
    return f"-c log_line_prefix= 2> {name}.log"


def _notes(world: World) -> str:
    return world.do(f'{_R} -At -c "{_NOTES}" 2>&1', code=None).text.strip()


def _stop(world: World, data: str, server: Background) -> None:
    world.ask(f"kill -INT $(head -n 1 {data}/postmaster.pid)")
    server.wait()


def _recover(world: World) -> None:
    world.section("point-in-time", "DROP TABLEの直前まで戻す")
    target = "recovery_target_time = '$(cat target.txt)'\nrecovery_target_action = 'promote'\n"
    server = _recover_to(world, "restored", target)
    notes, later = _notes(world), _has_later(world)
    back = _is_back(notes)
    world.fact("pitr-brings-the-table-back", back, seen=f"行は{notes}")
    world.fact("pitr-drops-what-came-later", not later, seen="表laterはない")
    history = _history(world, "restored")
    world.fact("pitr-starts-a-timeline", history, seen="00000002.historyができた")
    _stop(world, "restored", server)


def _prepare(world: World, name: str, target: str, archive: str = "archive") -> None:
    text = f"""\
cp -a base {name}
cat >> {name}/postgresql.auto.conf << EOF
restore_command = 'cp ../{archive}/%f %p'
{target}EOF
touch {name}/recovery.signal
"""
    world.file(f"{name}.sh", text)
    world.do(f"bash {name}.sh")
    servers.own(world, "postgres", name)


def _recover_to(world: World, name: str, target: str) -> Background:
    """Recover a copy of the base backup, and wait until it takes writes."""
    _prepare(world, name, target)
    server = servers.start_postgresql(world, name, _restored(name), 5433)
    world.ask(f"{_R} -At -c 'SELECT pg_is_in_recovery()'", until="^f$", code=None)
    world.say("起動し、回復が終わるのを待ちました。")
    world.do(f"cat {name}.log", show=_LOG)
    return server


def _is_back(notes: str) -> bool:
    return notes == "before-backup after-backup"


def _has_later(world: World) -> bool:
    query = "SELECT count(*) FROM pg_tables WHERE tablename = 'later'"
    return world.do(f'{_R} -At -c "{query}"').has("^1$")


def _history(world: World, data: str) -> bool:
    return world.do(f"ls {data}/pg_wal | grep history", code=None).has(r"^00000002\.history$")


def _short(world: World) -> None:
    world.section("missing-wal", "最後のWALがないアーカイブで試す")
    world.do("cp -a archive partial && rm partial/$(ls partial | tail -n 1)")
    stopped = _try_partial(world, "short")
    world.fact("missing-wal-stops-recovery", stopped, seen="FATALで終わり、起動しない")


def _try_partial(world: World, name: str) -> bool:
    """Recover from the archive `partial`; return whether the server gave up."""
    target = "recovery_target_time = '$(cat target.txt)'\nrecovery_target_action = 'promote'\n"
    _prepare(world, name, target, "partial")
    server = servers.run_postgresql(world, name, _restored(name), 5433)
    ended = "FATAL:.*recovery target|archive recovery complete"
    log = world.do(f"cat {name}.log", until=ended, code=None, show=_LOG)
    if log.has("FATAL"):
        server.wait()
        return True
    _stop(world, name, server)
    return False


# MariaDB


def _start_mariadb(world: World) -> None:
    servers.make_mariadb(world)
    servers.start_mariadb(world, options="--log-bin=binlog --server-id=1 --binlog-format=ROW")
    world.file("transfer.sql", _TRANSFER, unseen=True)
    world.file("bank.sql", _BANK, unseen=True)
    fill = "INSERT INTO m_filler SELECT repeat('x', 1000) FROM seq_1_to_3000"
    world.ask(f"{_MARIADB} -e 'CREATE DATABASE bank; CREATE DATABASE restored'")
    world.ask(f'{_MARIADB} bank < bank.sql && {_MARIADB} bank -e "{fill}"')


def _mariadb_dump(world: World) -> None:
    world.section("mariadb-dump", "mariadb-dumpの途中で、振替をコミットする")
    _start_mariadb(world)
    world.do(f"{_MARIADB} -N -e 'SELECT version()'")
    balances = _mariadb_balances(world, "--single-transaction")
    seen = f"戻した残高は{'、'.join(balances)}"
    world.fact("mariadb-dump-is-one-moment", _one_moment(balances), seen=seen)


def _mariadb_balances(world: World, option: str) -> list[str]:
    transfer = f"{_MARIADB} bank < transfer.sql"
    _dump_and_transfer(world, f"mariadb-dump -u root {option} bank", transfer)
    world.say("空のデータベースに戻します。")
    world.do(f"{_MARIADB} restored < dump.sql")
    return world.do(f'{_MARIADB} restored -N -e "{_TOTAL}"').text.split()


def _one_moment(balances: list[str]) -> bool:
    return balances == ["1000", "0", "1000"]


def _binlog(world: World) -> None:
    world.section("binlog", "MariaDBで、DROP TABLEの直前まで戻す")
    tables = _mariadb_recover(world, stop=True)
    seen = "表ordersがあり、laterはない"
    world.fact("binlog-replays-until-the-mistake", _orders_only(tables), seen=seen)


def _orders_only(tables: str) -> bool:
    return tables == "before-dump after-dump"


def _mariadb_recover(world: World, *, stop: bool) -> str:
    """Dump, lose the table, load the dump, replay the binlog; return the rows."""
    shop = f"{_MARIADB} shop"
    world.do(f"{_MARIADB} -e 'CREATE DATABASE shop'")
    world.do(f"{shop} -e 'CREATE TABLE orders (id int PRIMARY KEY, note varchar(20))'")
    world.do(f"{shop} -e \"INSERT INTO orders VALUES (1, 'before-dump')\"")
    world.do("mariadb-dump -u root --single-transaction --master-data=2 shop > shop.sql")
    world.do(f"{shop} -e \"INSERT INTO orders VALUES (2, 'after-dump')\"")
    world.do(f"{shop} -e 'DROP TABLE orders; CREATE TABLE later (note varchar(20))'")
    world.say("適用を始める位置は、ダンプの中にあります。")
    start = world.do("grep 'CHANGE MASTER' shop.sql").find(r"LOG_POS=(\d+)")[1]
    world.say("終える位置は、DROP TABLEのイベント群の先頭（Gtid）です。")
    events = (
        f"{_MARIADB} -N -e 'SHOW BINLOG EVENTS' | grep -B 1 'DROP TABLE .orders' | cut -f 1-3,6"
    )
    end = world.do(events).find(r"^binlog\.\d+\t(\d+)\tGtid")[1]
    limit = f" --stop-position={end}" if stop else ""
    world.do(f"mariadb-binlog --start-position={start}{limit} my/binlog.000001 > replay.sql")
    world.do(f"{_MARIADB} -e 'DROP DATABASE shop; CREATE DATABASE shop'")
    world.do(f"{shop} < shop.sql && {_MARIADB} < replay.sql")
    world.do(f"{shop} -N -e 'SHOW TABLES'")
    query = "SELECT group_concat(note ORDER BY id SEPARATOR ' ') FROM orders"
    return world.do(f'{shop} -N -e "{query}" 2>&1', code=None).text.strip()


def control(world: World) -> None:
    """Two snapshots, half a dump, roles, a later backup, no target, a whole archive, no stop."""
    _two_moments(world)
    _late_backup(world)
    _no_target(world)
    _whole_archive(world)
    _mariadb_control(world)


def _two_moments(world: World) -> None:
    world.section("two-moments", "表を1つずつ、別のトランザクションで写す")
    _start(world)
    copy = "pg_dump -U postgres -t {} bank >> dump.sql"
    first, filler, last = (copy.format(t) for t in ("a_account", "m_filler", "z_account"))
    world.file("dump.sh", f"{first}\n{filler}\n{_P} -q -d bank -f transfer.sql\n{last}\n")
    world.do("bash dump.sh")
    balances = _restore(world)
    why = "pg_dumpを表ごとに分けると、別々の時点を写す"
    holds = balances == "1000|0|1000"
    seen = f"戻した残高は{balances}"
    world.control("pg-dump-is-one-moment", holds, why=why, seen=seen)
    world.say("ダンプを半分に切り、空のデータベースに戻します。")
    world.do("dropdb -U postgres restored")
    world.do("truncate -s 1500K dump.sql")
    _restore(world)
    rows = _fillers(world)
    why = "途中で切れたファイルからは、全部は戻らない"
    seen = f"m_fillerは{rows[0]}行と{rows[1]}行"
    world.control("pg-dump-restores", len(set(rows)) == 1, why=why, seen=seen)
    world.ask(f"{_P} -q -d bank -c 'CREATE ROLE app'")
    missing = _has_no_role(world, "pg_dumpall -U postgres --roles-only")
    why = "pg_dumpallは、ロールを作る文も出す"
    world.control("pg-dump-leaves-out-roles", missing, why=why, seen="CREATE ROLEがある")


def _late_backup(world: World) -> None:
    world.section("late-backup", "2行目を入れてから、ベースバックアップを取る")
    _order(world, "CREATE TABLE orders (id serial, note text)", "before-backup")
    _order(world, "", "after-backup")
    _back_up(world)
    notes, history = _start_alone(world)
    why = "ベースバックアップより先にコミットした行は、入っている"
    world.control("base-backup-alone-is-old", _is_old(notes), why=why, seen=f"行は{notes}")
    why = "recovery.signalを置かなければ、同じタイムラインのまま起動する"
    world.control("pitr-starts-a-timeline", history, why=why, seen="historyはない")


def _no_target(world: World) -> None:
    world.section("no-target", "目標時刻を指定せずに、アーカイブの終わりまで適用する")
    world.do(f"{_P} -At -c 'SELECT clock_timestamp()' > target.txt")
    world.do(f"{_P} -c 'DROP TABLE orders'")
    world.do(f"{_P} -c 'CREATE TABLE later (note text)'")
    _archive(world)
    server = _recover_to(world, "restored", "")
    notes, later = _notes(world), _has_later(world)
    why = "目標がなければ、DROP TABLEも適用する"
    seen = "表ordersはない"
    world.control("pitr-brings-the-table-back", _is_back(notes), why=why, seen=seen)
    why = "目標がなければ、後の表も戻る"
    world.control("pitr-drops-what-came-later", not later, why=why, seen="表laterがある")
    _stop(world, "restored", server)


def _whole_archive(world: World) -> None:
    world.section("whole-archive", "WALがそろったアーカイブで試す")
    world.do("cp -a archive partial")
    stopped = _try_partial(world, "whole")
    why = "目標までのWALがあれば、回復が終わる"
    seen = "archive recovery completeと出た"
    world.control("missing-wal-stops-recovery", stopped, why=why, seen=seen)


def _mariadb_control(world: World) -> None:
    world.section("mariadb", "MariaDBで、1つのトランザクションにしない、終わりを決めない")
    _start_mariadb(world)
    balances = _mariadb_balances(world, "--skip-lock-tables")
    why = "--single-transactionもロックもなければ、表ごとに別の時点を写す"
    seen, holds = f"戻した残高は{'、'.join(balances)}", _one_moment(balances)
    world.control("mariadb-dump-is-one-moment", holds, why=why, seen=seen)
    tables = _mariadb_recover(world, stop=False)
    why = "--stop-positionがなければ、DROP TABLEも適用する"
    holds = _orders_only(tables)
    world.control("binlog-replays-until-the-mistake", holds, why=why, seen="表ordersはない")
