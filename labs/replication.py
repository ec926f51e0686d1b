"""What a PostgreSQL standby has when COMMIT returns, and what a replica does not save you from."""

from __future__ import annotations

from labs.harness import Background, Done, Lab, World, both, cut, head, only, servers

LAB = Lab(
    title="PostgreSQLのスタンバイを作り、遅らせ、昇格させる",
    chapter="database/replication-and-backup",
    shows="COMMITが戻った瞬間にスタンバイが何を持つか、レプリカでは何が守れないかを見ます。",
    facts={
        "rows-arrive": "プライマリーで入れた行が、スタンバイでも読める",
        "standby-refuses-writes": "スタンバイは、書き込みをread-only transactionとして断る",
        "asynchronous-by-default": "既定の複製は非同期（sync_stateがasync）である",
        "asynchronous-commit-does-not-wait": (
            "非同期のCOMMITは、スタンバイがWALを書いていなくても成功を返す"
        ),
        "flushed-is-not-replayed": (
            "スタンバイがWALを同期済みでも、適用するまで、その行は読めない"
        ),
        "synchronous-commit-waits": (
            "同期のスタンバイが答えない間、COMMITはSyncRepで待ち、ほかの接続に行は見えない"
        ),
        "cancelled-wait-is-committed": (
            "同期の待ちを取り消しても、その行はプライマリーにコミット済みである"
        ),
        "on-does-not-wait-for-replay": (
            "synchronous_commit=onのCOMMITは、スタンバイの適用を待たずに戻る"
        ),
        "remote-apply-waits-for-replay": (
            "synchronous_commit=remote_applyのCOMMITは、スタンバイの適用を待つ"
        ),
        "mistakes-are-replicated": "条件を忘れたDELETEは、スタンバイの行も消す",
        "slot-keeps-wal": "スロットは、止まったスタンバイのためにWALを残し続ける",
        "slot-lets-standby-catch-up": "スロットが残したWALで、スタンバイは追いつく",
        "asynchronous-commit-is-lost": (
            "非同期では、成功を返したコミットが、昇格の後にないことがある"
        ),
        "promotion-allows-writes": "昇格したスタンバイは、書き込みを受け付ける",
        "promotion-starts-a-timeline": "昇格すると、タイムライン2が始まる",
        "old-primary-still-writes": (
            "古いプライマリーを起動し直すと、2台がどちらも書き込みを受け付ける"
        ),
    },
    needs=servers.POSTGRESQL,
    seconds=12,
)

_P = servers.PSQL
_S = f"{servers.PSQL} -p 5433"
_SETTINGS = "-c autovacuum=off"
_POSITIONS = """\
\\pset footer off
SELECT sync_state, pg_wal_lsn_diff(pg_current_wal_lsn(), sent_lsn) AS sent,
  pg_wal_lsn_diff(pg_current_wal_lsn(), write_lsn) AS write,
  pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn) AS flush,
  pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) AS replay
FROM pg_stat_replication;
"""
_SLOTS = """\
\\pset footer off
SELECT active, wal_status,
  pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) AS retained
FROM pg_replication_slots;
"""
_FILL = "SELECT pg_switch_wal();\nCREATE TABLE t();\nDROP TABLE t;\n" * 12
_RECEIVER = f"$({_S} -At -c 'SELECT pid FROM pg_stat_wal_receiver')"
_SENDER = f"$({_P} -At -c 'SELECT pid FROM pg_stat_replication')"
_WAITING = "SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE query ~ '^INSERT'"
_SIGNAL = both(only("standby.signal|primary_"), cut(r" (?:channel|ssl|gss|krb|target)\S+=.*(?=')"))
_ONCE = both(only("FATAL.*WAL"), head(2))
_READ_ONLY = "cannot execute INSERT in a read-only transaction"


def run(world: World) -> None:
    """Build a pair, hold it up at each step, then lose the primary."""
    primary = _build(world)
    _arrive(world)
    _asynchronous(world)
    _replay(world)
    _synchronous(world)
    _levels(world)
    _mistake(world)
    _slot(world)
    _fail_over(world, primary)
    _two_primaries(world)


# The pair


def _build(world: World) -> Background:
    """Start both; return the primary."""
    world.section("build", "ベースバックアップから、スタンバイを作る")
    world.say("プライマリーを起動し、表noteを作っておきました。WALのファイルは1 MiBです。")
    primary = _start_primary(world)
    world.do(f"{_P} -At -c 'SHOW server_version'")
    _base_backup(world)
    _start_standby(world)
    return primary


def _start_primary(world: World) -> Background:
    servers.make_postgresql(world, options="--wal-segsize=1")
    sizes = "-c min_wal_size=2MB -c max_wal_size=8MB"
    world.file("positions.sql", _POSITIONS, unseen=True)
    world.file("slots.sql", _SLOTS, unseen=True)
    primary = servers.start_postgresql(world, settings=f"{_SETTINGS} {sizes}")
    world.ask(f"{_P} -qc 'CREATE TABLE note (id int PRIMARY KEY)'")
    return primary


def _base_backup(world: World) -> None:
    socket = "-h /run/postgresql -U postgres"
    world.do(f"pg_basebackup {socket} -D standby -R -C -S standby1 -c fast")
    servers.own(world, "postgres", "standby")
    world.say("-Rが書いた設定です。standby.signalがあると、スタンバイとして起動します。")
    world.do("ls standby/*.signal; cat standby/postgresql.auto.conf", show=_SIGNAL)


def _start_standby(world: World) -> Background:
    ours = f"{_SETTINGS} -c cluster_name=standby1 -c log_line_prefix= 2> standby.log"
    return servers.start_postgresql(world, "standby", ours, 5433)


def _insert(world: World, *ids: int) -> None:
    world.do(f"{_P} -c 'INSERT INTO note VALUES {_values(*ids)}'")


def _values(*ids: int) -> str:
    return ", ".join(f"({n})" for n in ids)


def _rows(world: World, server: str, until: str = "") -> int:
    """Show and return how many rows a server has."""
    return int(world.do(f"{server} -At -c 'SELECT count(*) FROM note'", until=until).text)


def _left(world: World, until: str = "") -> list[int]:
    """Show how many bytes each position is behind, and return them (sent, …, replay)."""
    done = world.do(f"{_P} -f positions.sql", until=until)
    return [int(x) for x in done.find(r"^ \w+ +\|([\d |]+)$")[1].split("|")]


def _caught_up(world: World) -> None:
    current = world.ask(f"{_P} -At -c 'SELECT pg_current_wal_lsn()'").text.strip()
    done = f"SELECT pg_last_wal_replay_lsn() >= '{current}'"
    world.ask(f'{_S} -At -c "{done}"', until="^t$")


def _arrive(world: World) -> None:
    world.section("arrive", "プライマリーに入れ、スタンバイで読む")
    _insert(world, 1, 2, 3)
    rows = _rows(world, _S, until="^3$")
    world.fact("rows-arrive", rows == 3, seen=f"スタンバイに{rows}行")
    refused = _write(world, _S, 4).has(_READ_ONLY)
    world.fact("standby-refuses-writes", refused, seen="INSERTがエラーになった")
    world.say("sent、write、flush、replayは、そこまで進んでいないWALのバイト数です。")
    world.do("cat positions.sql")
    mode = world.do(f"{_P} -f positions.sql", until=r"0 \| +0 \| +0 \| +0$")
    world.fact("asynchronous-by-default", mode.has("^ async "), seen="sync_stateはasync")


def _write(world: World, server: str, number: int) -> Done:
    return world.do(f"{server} -c 'INSERT INTO note VALUES ({number})' 2>&1", code=None)


# Held up


def _asynchronous(world: World) -> None:
    world.section("asynchronous", "非同期で、スタンバイの受信を止める")
    world.say("スタンバイのwalreceiverを、SIGSTOPで止めます。")
    world.do(f"kill -STOP {_RECEIVER}")
    _insert(world, 4, 5)
    left = _left(world)
    seen = f"flushは{left[2]}バイト残り、INSERTは終わった"
    world.fact("asynchronous-commit-does-not-wait", left[2] > 0, seen=seen)
    world.say("walreceiverを動かします。")
    world.do(f"kill -CONT {_RECEIVER}")
    _left(world, until=r"0 \| +0 \| +0 \| +0$")


def _replay(world: World) -> None:
    world.section("replay", "受信はさせ、適用だけを止める")
    _pause(world)
    _insert(world, 6)
    left = _left(world, until=r"0 \| +0 \| +0 \| +[1-9]\d*$")
    held = _is_hidden(left, _rows(world, _S), 6)
    seen = f"flushの残りは{left[2]}、replayの残りは{left[3]}。6行目は見えない"
    world.fact("flushed-is-not-replayed", held, seen=seen)
    _resume(world)
    _rows(world, _S, until="^6$")


def _is_hidden(left: list[int], rows: int, total: int) -> bool:
    return left[2] == 0 and rows < total


def _pause(world: World) -> None:
    world.do(f"{_S} -At -c 'SELECT pg_wal_replay_pause()'")
    world.ask(f"{_S} -At -c 'SELECT pg_get_wal_replay_pause_state()'", until="^paused$")


def _resume(world: World) -> None:
    world.do(f"{_S} -At -c 'SELECT pg_wal_replay_resume()'")


def _synchronous(world: World) -> None:
    world.section("synchronous", "同期にして、スタンバイの受信を止める")
    _make_synchronous(world)
    world.do(f"kill -STOP {_RECEIVER}")
    client = _begin(world, 7)
    waits = _waits(world)
    rows = _rows(world, _P)
    seen = f"IPC、SyncRepで待ち、プライマリーの別の接続には{rows}行"
    world.fact("synchronous-commit-waits", waits and rows == 6, seen=seen)
    world.do(f"kill -CONT {_RECEIVER}")
    _finish(world, client)
    world.say("もう一度止め、今度は待っているCOMMITを取り消します。")
    world.do(f"kill -STOP {_RECEIVER}")
    client = _begin(world, 8)
    world.ask(f'{_P} -At -c "{_WAITING}"', until="SyncRep")
    cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ '^INSERT'"
    world.do(f'{_P} -At -c "{cancel}"')
    _finish(world, client)
    rows = _rows(world, _P)
    world.fact("cancelled-wait-is-committed", rows == 8, seen=f"プライマリーは{rows}行になった")
    world.do(f"kill -CONT {_RECEIVER}")


def _make_synchronous(world: World) -> None:
    world.do(f"{_P} -c \"ALTER SYSTEM SET synchronous_standby_names = 'standby1'\"")
    world.do(f"{_P} -At -c 'SELECT pg_reload_conf()'")
    world.ask(f"{_P} -f positions.sql", until="^ sync ")


def _waits(world: World) -> bool:
    return world.do(f'{_P} -At -c "{_WAITING}"', until="IPC").has("^IPC.SyncRep$")


def _begin(world: World, number: int, level: str = "") -> Background:
    options = f"PGOPTIONS=-csynchronous_commit={level} " if level else ""
    return world.start(f"{options}{_P} -c 'INSERT INTO note VALUES ({number})' 2>&1")


def _finish(world: World, client: Background) -> None:
    world.say("待っていたINSERTの出力です。")
    client.wait()
    world.show(client)


def _levels(world: World) -> None:
    world.section("levels", "onとremote_applyを比べる")
    world.say("適用だけを止めます。受信と同期は動いています。")
    _pause(world)
    client = _begin(world, 9, "on")
    client.wait()
    world.show(client)
    rows = _rows(world, _S)
    returned = not client.running and rows < 9
    world.fact("on-does-not-wait-for-replay", returned, seen=f"戻ったとき、スタンバイは{rows}行")
    client = _begin(world, 10, "remote_apply")
    waits = _waits(world)
    _resume(world)
    _finish(world, client)
    rows = _rows(world, _S)
    seen = f"適用を再開すると戻り、スタンバイは{rows}行"
    world.fact("remote-apply-waits-for-replay", waits and rows == 10, seen=seen)


def _mistake(world: World) -> None:
    world.section("mistake", "プライマリーで、条件を忘れたDELETEを実行する")
    world.do(f"{_P} -c 'DELETE FROM note'")
    rows = _rows(world, _S, until="^0$")
    world.fact("mistakes-are-replicated", rows == 0, seen=f"スタンバイも{rows}行")
    world.do(f"{_P} -c 'ALTER SYSTEM RESET synchronous_standby_names'")
    world.do(f"{_P} -At -c 'SELECT pg_reload_conf()'")


# The slot


def _slot(world: World) -> None:
    world.section("slot", "スタンバイを止めたまま、12 MiBのWALを書く")
    kept, rows = _absent(world)
    world.fact("slot-keeps-wal", kept, seen="チェックポイントの後も、要るWALが残った")
    world.fact("slot-lets-standby-catch-up", rows == "1", seen="スタンバイに新しい行が届いた")


def _absent(world: World) -> tuple[bool, str]:
    """Write WAL with the standby away; return whether it was kept and what arrived later."""
    running = world.ask("head -n 1 standby/postmaster.pid").text.strip()
    world.say("スタンバイを止めます。")
    world.do("kill -INT $(head -n 1 standby/postmaster.pid)")
    world.ask(f"kill -0 {running} 2>&1 || echo ended", until="ended|No such")
    lsn = f'{_P} -At -c "SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots"'
    needed = world.do(lsn).text.strip()
    world.file("fill.sql", _FILL, unseen=True)
    world.say("fill.sqlは、小さな変更とpg_switch_wal()を12回くり返します。")
    world.do(f"{_P} -q -f fill.sql > fill.log && {_P} -c CHECKPOINT")
    _insert(world, 100)
    world.do("cat slots.sql")
    world.do(f"{_P} -f slots.sql")
    kept = world.do(f"ls pg/pg_wal/{needed} 2>&1", code=None).code == 0
    world.say("スタンバイを起動します。")
    _start_standby(world)
    count = f"{_S} -At -c 'SELECT count(*) FROM note WHERE id = 100'"
    if kept:
        return kept, world.do(count, until="^1$").text.strip()
    world.do("cat standby.log", until="FATAL.*WAL", show=_ONCE)
    return kept, world.do(count).text.strip()


# The primary is lost


def _fail_over(world: World, primary: Background) -> None:
    world.section("fail-over", "プライマリーを失い、スタンバイを昇格させる")
    world.say("送る側（walsender）を止めて、コミットします。")
    _caught_up(world)
    sender = world.ask(f"echo {_SENDER}").text.strip()
    world.do(f"kill -STOP {_SENDER}")
    _insert(world, 200)
    _kill_primary(world, primary, sender)
    lost = _promote(world)
    world.fact("asynchronous-commit-is-lost", lost, seen="200番の行はない")
    writes = _writes(world, _S, 201)
    world.fact("promotion-allows-writes", writes, seen="INSERTに成功した")
    world.fact("promotion-starts-a-timeline", _history(world), seen="00000002.historyができた")


def _kill_primary(world: World, primary: Background, sender: str) -> None:
    world.say("プライマリーをSIGKILLで終わらせます。")
    world.do("kill -KILL $(head -n 1 pg/postmaster.pid)")
    primary.wait()
    world.ask(f"kill -KILL {sender}", code=None)
    alive = "ls -l /proc/[0-9]*/cwd 2> /dev/null | grep -c 'lab/pg$'"
    world.ask(alive, until="^0$", code=None)


def _promote(world: World) -> bool:
    """Promote the standby; return whether the last row is missing there."""
    world.say("スタンバイを昇格させます。")
    world.do(f"{_S} -At -c 'SELECT pg_promote()'")
    return world.do(f"{_S} -At -c 'SELECT count(*) FROM note WHERE id = 200'").has("^0$")


def _writes(world: World, server: str, number: int) -> bool:
    return _write(world, server, number).has("^INSERT 0 1$")


def _history(world: World) -> bool:
    done = world.do("ls standby/pg_wal | grep history", code=None)
    return done.has(r"^00000002\.history$")


def _two_primaries(world: World) -> None:
    world.section("two-primaries", "古いプライマリーを起動する")
    world.say("古いプライマリーは、昇格を知りません。両方に同じ番号で入れます。")
    both_write = _restart_old(world)
    world.fact("old-primary-still-writes", both_write, seen="どちらのINSERTも成功した")


def _restart_old(world: World) -> bool:
    servers.start_postgresql(world, settings=f"{_SETTINGS} 2> old.log")
    answers = [_writes(world, server, 300) for server in (_P, _S)]
    return all(answers)


def control(world: World) -> None:
    """Hold the receiver, swap the levels, delay, cap the slot, let it send, fence the old one."""
    primary = _build(world)
    _without_arrival(world)
    _other_levels(world)
    _delayed(world)
    _capped_slot(world)
    _orderly(world, primary)


def _without_arrival(world: World) -> None:
    world.section("without-arrival", "受信を止める、同期にする")
    world.do(f"kill -STOP {_RECEIVER}")
    _insert(world, 1, 2, 3)
    rows = _rows(world, _S)
    why = "受信が止まっていれば、行は届かない"
    world.control("rows-arrive", rows == 3, why=why, seen=f"スタンバイに{rows}行")
    world.do(f"kill -CONT {_RECEIVER}")
    _make_synchronous(world)
    mode = world.do(f"{_P} -f positions.sql", until=r"0 \| +0 \| +0 \| +0$")
    why = "synchronous_standby_namesに名前を入れると、同期になる"
    holds = mode.has("^ async ")
    world.control("asynchronous-by-default", holds, why=why, seen="sync_stateはsync")
    world.do(f"kill -STOP {_RECEIVER}")
    client = _begin(world, 4)
    _waits(world)
    why = "同期なら、スタンバイが書くまで戻らない"
    seen = "INSERTは終わっていない"
    world.control("asynchronous-commit-does-not-wait", not client.running, why=why, seen=seen)
    rows = _rows(world, _P)
    why = "取り消さずに待っている間は、プライマリーでもまだ見えない"
    world.control("cancelled-wait-is-committed", rows == 4, why=why, seen=f"{rows}行のまま")
    world.do(f"kill -CONT {_RECEIVER}")
    _finish(world, client)


def _other_levels(world: World) -> None:
    world.section("other-levels", "synchronous_commitをlocal、on、remote_applyに変える")
    world.do(f"kill -STOP {_RECEIVER}")
    client = _begin(world, 5, "local")
    client.wait()
    world.show(client)
    why = "localなら、同期のスタンバイも待たない"
    world.control("synchronous-commit-waits", client.running, why=why, seen="INSERTは終わった")
    world.do(f"kill -CONT {_RECEIVER}")
    left = _left(world, until=r"0 \| +0 \| +0 \| +0$")
    held = _is_hidden(left, _rows(world, _S), 5)
    why = "適用が止まっていなければ、すぐ読める"
    world.control("flushed-is-not-replayed", held, why=why, seen="replayの残りは0、5行とも見える")
    _pause(world)
    client = _begin(world, 6, "on")
    client.wait()
    world.show(client)
    why = "onなら、適用を待たずに戻る"
    world.control("remote-apply-waits-for-replay", client.running, why=why, seen="終わった")
    client = _begin(world, 7, "remote_apply")
    _waits(world)
    why = "remote_applyなら、適用が終わるまで戻らない"
    holds = not client.running
    world.control("on-does-not-wait-for-replay", holds, why=why, seen="終わっていない")
    _resume(world)
    _finish(world, client)


def _delayed(world: World) -> None:
    world.section("delayed", "適用を1時間遅らせたスタンバイ")
    world.do(f"{_P} -c 'ALTER SYSTEM RESET synchronous_standby_names'")
    world.do(f"{_P} -At -c 'SELECT pg_reload_conf()'")
    world.do(f"{_S} -c \"ALTER SYSTEM SET recovery_min_apply_delay = '1h'\"")
    world.do(f"{_S} -At -c 'SELECT pg_reload_conf()'")
    world.ask(f"{_S} -At -c 'SHOW recovery_min_apply_delay'", until="^1h")
    world.do(f"{_P} -c 'DELETE FROM note'")
    left = _left(world, until=r"0 \| +0 \| +0 \| +[1-9]\d*$")
    rows = _rows(world, _S)
    why = "適用を遅らせている間は、消す前の行が残る"
    seen = f"flushの残りは{left[2]}、スタンバイに{rows}行"
    world.control("mistakes-are-replicated", rows == 0, why=why, seen=seen)


def _capped_slot(world: World) -> None:
    world.section("capped-slot", "スロットが残すWALを、2 MBまでにする")
    world.do(f"{_S} -c 'ALTER SYSTEM RESET recovery_min_apply_delay'")
    world.do(f"{_P} -c \"ALTER SYSTEM SET max_slot_wal_keep_size = '2MB'\"")
    world.do(f"{_P} -At -c 'SELECT pg_reload_conf()'")
    kept, rows = _absent(world)
    why = "上限を超えると、スタンバイに要るWALも消す"
    world.control("slot-keeps-wal", kept, why=why, seen="WALのファイルはない")
    why = "要るWALがなければ、追いつけない"
    world.control("slot-lets-standby-catch-up", rows == "1", why=why, seen="行は届かない")
    world.say("このスタンバイは、作り直すしかありません。")
    world.do("kill -INT $(head -n 1 standby/postmaster.pid)")
    world.ask("ls standby/postmaster.pid 2>&1", until="No such", code=None)
    world.do(f"{_P} -At -c \"SELECT pg_drop_replication_slot('standby1')\"")
    world.do("rm -r standby")
    _base_backup(world)
    _start_standby(world)


def _orderly(world: World, primary: Background) -> None:
    world.section("orderly", "送り終えてから、プライマリーを止める")
    _insert(world, 200)
    _caught_up(world)
    sender = world.ask(f"echo {_SENDER}").text.strip()
    _kill_primary(world, primary, sender)
    writes = _writes(world, _S, 201)
    why = "昇格させるまでは、書き込めない"
    world.control("promotion-allows-writes", writes, why=why, seen="INSERTがエラーになった")
    why = "昇格させるまでは、タイムライン1のまま"
    world.control("promotion-starts-a-timeline", _history(world), why=why, seen="historyはない")
    lost = _promote(world)
    why = "届いて適用されたコミットは、昇格の後も残る"
    world.control("asynchronous-commit-is-lost", lost, why=why, seen="200番の行はある")
    refused = _write(world, _S, 201).has(_READ_ONLY)
    why = "昇格すれば、スタンバイではない"
    world.control("standby-refuses-writes", refused, why=why, seen="INSERTに成功した")
    world.say("古いほうにstandby.signalを置いてから、起動します。")
    world.do("touch pg/standby.signal")
    both_write = _restart_old(world)
    why = "スタンバイとして起動すれば、書き込みを断る"
    seen = "INSERTが通ったのは、昇格したほうだけ"
    world.control("old-primary-still-writes", both_write, why=why, seen=seen)
