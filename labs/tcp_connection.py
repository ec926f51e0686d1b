"""How a TCP connection begins and ends, and what both ends know in between."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labs.harness import Lab, Namespace, Session, World, cut, feature, program

LAB = Lab(
    title="TCPコネクションの始まりと終わり",
    chapter="protocols/tcp-connection",
    shows="ケーブル1本でつないだ2つの名前空間で、交わされるセグメントと両端の状態を見ます。",
    topology=(("client", "eth0", "192.0.2.1/24"), ("server", "eth0", "192.0.2.2/24")),
    facts={
        "handshake-is-syn-synack-ack": "確立は、SYN、SYN,ACK、ACKの3つのセグメントで済む",
        "ack-is-isn-plus-one": "SYNへのackは、相手のISNに1を足した値になる",
        "mss-only-on-syn": "MSSが付くのは、SYNとSYN,ACKだけである",
        "fin-takes-one-number": "FINへのackも、FINのseqに1を足した値になる",
        "first-closer-is-in-fin-wait-2": "先に閉じた側は、相手が閉じるまでFIN-WAIT-2にいる",
        "other-side-is-in-close-wait": "FINを受けた側は、自分がcloseするまでCLOSE-WAITにいる",
        "half-closed-still-receives": "FINを送った後も、相手からのデータは届く",
        "time-wait-stays-with-first-closer": "TIME-WAITは、先に閉じた側だけに残る",
        "closed-port-answers-rst": "待ち受けのないポートへのSYNには、RSTが返る",
        "dropped-syn-meets-silence": "捨てられたSYNには何も返らず、クライアントは再送する",
        "accept-queue-is-backlog-plus-one": "acceptしなくても、backlog+1本までは接続が成功する",
        "overflow-is-counted": "あふれた接続は、TcpExtListenOverflowsに数えられる",
        "isns-are-distinct": "ISNは、コネクションごとに違う",
    },
    needs=(
        program("ip", "iproute2"),
        program("ss", "iproute2"),
        program("tcpdump"),
        program("nft", "nftables"),
        program("python3"),
        feature("network-namespace"),
        feature("nftables"),
    ),
    seconds=4,
    stable=True,
)

_NO_TIMES = cut(r"(nop,nop,)?TS val \d+ ecr \d+", r"win \d+")
_SEGMENT = re.compile(
    r"Flags \[(?P<flags>[^]]+)](?:, seq (?P<seq>\d+)(?::\d+)?)?(?:, ack (?P<ack>\d+))?"
)
_RST = r"\[R"
_TWO_SYNS = r"(?s)\[S\].*\[S\]"


@dataclass(frozen=True)
class _Stage:
    """Two hosts with a Python prompt on each."""

    world: World
    client: Namespace
    server: Namespace
    here: Session
    there: Session


def _set_up(world: World) -> _Stage:
    world.section("hosts", "2つの名前空間をケーブルでつなぐ")
    world.say("1台のマシンの中に、別々のネットワークを持つclientとserverを作ります。")
    client, server = world.network.pair("client", "server")
    here, there = world.python(client), world.python(server)
    here("import socket")
    there("import socket")
    return _Stage(world, client, server, here, there)


def run(world: World) -> None:
    """Open and close one connection, then meet a closed port, a filter and a full queue."""
    stage = _set_up(world)
    _open_and_close(stage)
    _refusal_and_silence(stage)
    _accept_queue(stage)
    _initial_numbers(stage)


def _segments(lines: list[str]) -> list[re.Match[str]]:
    return [found for line in lines if (found := _SEGMENT.search(line))]


def _flags(lines: list[str]) -> list[str]:
    return [segment["flags"] for segment in _segments(lines)]


def _open_and_close(stage: _Stage) -> None:
    world, here, there = stage.world, stage.here, stage.there
    world.section("handshake", "確立の3つのセグメントを見る")
    world.say("採取を始めます。`-S`を付けると、番号は0からの相対値に直されません。")
    capture = stage.client.capture("eth0", "tcp")
    there("listener = socket.create_server(('192.0.2.2', 8080), backlog=2)")
    here("connection = socket.create_connection(('192.0.2.2', 8080))")
    there("peer, address = listener.accept()")
    world.until(lambda: len(capture.lines) >= 3, "3つのセグメントが採取される")
    world.show(capture, _NO_TIMES)
    _prove_handshake(world, capture.lines)
    _close_one_way(stage)
    _close_the_other_way(stage)
    world.until(lambda: _acknowledged_fins(capture.lines) == 2, "2つのFINへのackが採取される")
    world.say("初めから採取していたセグメントです。")
    world.stop(capture, show=_NO_TIMES)
    _prove_numbers(world, capture.lines)


def _prove_handshake(world: World, lines: list[str]) -> None:
    syn, answer, ack = _segments(lines)
    flags = _flags(lines)
    world.fact("handshake-is-syn-synack-ack", flags == ["S", "S.", "."], seen=" → ".join(flags))
    world.fact(
        "ack-is-isn-plus-one",
        int(answer["ack"]) == int(syn["seq"]) + 1 and int(ack["ack"]) == int(answer["seq"]) + 1,
        seen=f"ISN {syn['seq']}にack {answer['ack']}、ISN {answer['seq']}にack {ack['ack']}",
    )


def _close_one_way(stage: _Stage) -> None:
    world = stage.world
    world.section("closing", "方向ごとに閉じる")
    world.say("クライアントだけが送り終えます。サーバーのプログラムは、まだcloseしていません。")
    stage.here("connection.shutdown(socket.SHUT_WR)")
    near = world.do("ss -tan", stage.client, until="FIN-WAIT-2")
    far = world.do("ss -tan", stage.server, until="CLOSE-WAIT")
    world.fact("first-closer-is-in-fin-wait-2", near.has("FIN-WAIT-2"), seen="clientにFIN-WAIT-2")
    world.fact("other-side-is-in-close-wait", far.has("CLOSE-WAIT"), seen="serverにCLOSE-WAIT")
    world.say("閉じたのは片方向だけなので、サーバーからのデータは届きます。")
    stage.there("peer.sendall(b'still here')")
    received = stage.here("connection.recv(100)")
    world.fact("half-closed-still-receives", received == "b'still here'", seen=received)


def _close_the_other_way(stage: _Stage) -> None:
    world = stage.world
    world.section("time-wait", "TIME-WAITが残る側を見る")
    world.say("サーバーも閉じると、先に閉じたクライアントだけにTIME-WAITが残ります。")
    stage.there("peer.close()")
    near = world.do("ss -tano", stage.client, until="TIME-WAIT")
    far = world.do("ss -tan", stage.server, until=r"(?s)\A(?!.*LAST-ACK)")
    holds = near.has("TIME-WAIT") and not far.has("TIME-WAIT")
    world.fact("time-wait-stays-with-first-closer", holds, seen="clientだけにTIME-WAIT")


def _acknowledged_fins(lines: list[str]) -> int:
    """Count the FINs that were acknowledged with the number after theirs."""
    segments = _segments(lines)
    acks = {segment["ack"] for segment in segments}
    fins = [segment["seq"] for segment in segments if "F" in segment["flags"]]
    return sum(str(int(number) + 1) in acks for number in fins)


def _prove_numbers(world: World, lines: list[str]) -> None:
    with_mss = [found["flags"] for found in _segments(lines) if "mss" in found.string]
    seen = f"MSSが付いたのは{'と'.join(with_mss)}"
    world.fact("mss-only-on-syn", with_mss == ["S", "S."], seen=seen)
    count = _acknowledged_fins(lines)
    world.fact("fin-takes-one-number", count == 2, seen=f"{count}つのFINに、seq+1のack")


def _knock(stage: _Stage, port: int, enough: str, error: str) -> list[str]:
    """Try to connect; return the flags captured once `enough` came."""
    capture = stage.client.capture("eth0", f"tcp port {port}")
    stage.here(f"socket.create_connection(('192.0.2.2', {port}), timeout=1.5)", raises=error)
    capture.wait_for(enough)
    return _flags(stage.world.stop(capture, show=_NO_TIMES).lines)


def _drop(stage: _Stage, port: int) -> None:
    hook = "{ type filter hook input priority 0; }"
    stage.world.do("nft add table inet lab", stage.server)
    stage.world.do(f"nft add chain inet lab input '{hook}'", stage.server)
    stage.world.do(f"nft add rule inet lab input tcp dport {port} drop", stage.server)


def _only_syns(flags: list[str]) -> bool:
    return len(flags) > 1 and set(flags) == {"S"}


def _refusal_and_silence(stage: _Stage) -> None:
    world = stage.world
    world.section("refusal-and-silence", "拒否と沈黙を見分ける")
    world.say("待ち受けのない8081番につなぎます。")
    flags = _knock(stage, 8081, _RST, "ConnectionRefusedError")
    world.fact("closed-port-answers-rst", flags == ["S", "R."], seen=" → ".join(flags))
    world.say("次に、サーバーのフィルターで8082番へのSYNを捨てます。")
    _drop(stage, 8082)
    flags = _knock(stage, 8082, _TWO_SYNS, "TimeoutError")
    world.fact("dropped-syn-meets-silence", _only_syns(flags), seen=" → ".join(flags))


def _overflows(stage: _Stage) -> int:
    counter = stage.world.ask("nstat -az TcpExtListenOverflows", stage.server)
    return int(counter.find(r"ListenOverflows\s+(\d+)")[1])


def _accept_queue(stage: _Stage) -> None:
    world = stage.world
    world.section("accept-queue", "acceptしないサーバーにつなぐ")
    world.say("backlogを2にして一度もacceptしないサーバーへ、5本つなぎます。")
    stage.there("busy = socket.create_server(('192.0.2.2', 8083), backlog=2)")
    stage.here("sockets = [socket.socket() for _ in range(5)]")
    stage.here("for s in sockets: s.setblocking(False)")
    stage.here("errors = [s.connect_ex(('192.0.2.2', 8083)) for s in sockets]")
    near = world.do("ss -Htan dport = 8083 | sort", stage.client, until=r"(?s)(ESTAB.*){3}")
    queue = world.do("ss -ltn sport = 8083", stage.server, until="LISTEN +3 +2 ")
    made, waiting = len(near.all("^ESTAB")), queue.find(r"LISTEN +(\d+)")[1]
    seen = f"ESTABが{made}本、SYN-SENTが{len(near.all('^SYN-SENT'))}本、待ち行列に{waiting}本"
    world.fact("accept-queue-is-backlog-plus-one", (made, waiting) == (3, "3"), seen=seen)
    world.say(
        "あふれた数はカーネルが数えています。再送のたびに増えるので、値は実行ごとに違います。"
    )
    world.until(lambda: _overflows(stage) > 0, "あふれた数が増える")
    world.do("nstat -az TcpExtListenOverflows", stage.server, show=cut(r"(?<= )\d+(?= +0\.0)"))
    world.fact("overflow-is-counted", _overflows(stage) > 0, seen=f"{_overflows(stage)}回")


def _initial_numbers(stage: _Stage) -> None:
    world = stage.world
    world.section("initial-numbers", "20本のISNを比べる")
    world.say("クライアントとサーバーのISNを、20本のコネクションで採取します。")
    capture = stage.client.capture("eth0", "'tcp port 8084 and tcp[tcpflags] & tcp-syn != 0'")
    stage.there("willing = socket.create_server(('192.0.2.2', 8084), backlog=64)")
    stage.here("many = [socket.create_connection(('192.0.2.2', 8084)) for _ in range(20)]")
    world.until(lambda: len(capture.lines) >= 40, "20本分のSYNとSYN,ACKが採取される")
    numbers = [segment["seq"] for segment in _segments(capture.lines)]
    seen = f"{len(numbers)}個のISNが{len(set(numbers))}通り"
    world.fact("isns-are-distinct", len(numbers) == len(set(numbers)), seen=seen)


def control(world: World) -> None:
    """Take the causes away: another first closer, a filter, a server that accepts."""
    stage = _set_up(world)
    _server_closes_first(stage)
    _filter_hides_the_closed_port(stage)
    _server_that_accepts(stage)


def _server_closes_first(stage: _Stage) -> None:
    world, here, there = stage.world, stage.here, stage.there
    world.section("first-closer", "サーバーから先に閉じる")
    there("listener = socket.create_server(('192.0.2.2', 8080))")
    here("connection = socket.create_connection(('192.0.2.2', 8080))")
    there("peer, address = listener.accept()")
    there("peer.close()")
    here("connection.recv(1)")
    here("connection.close()")
    far = world.do("ss -tan", stage.server, until="TIME-WAIT")
    near = world.do("ss -tan", stage.client)
    world.control(
        "time-wait-stays-with-first-closer",
        near.has("TIME-WAIT") and not far.has("TIME-WAIT"),
        why="サーバーが先に閉じれば、TIME-WAITはサーバーに残る",
        seen="serverだけにTIME-WAIT",
    )


def _filter_hides_the_closed_port(stage: _Stage) -> None:
    world = stage.world
    world.section("filter", "同じ閉じたポートを、フィルターなしとありで比べる")
    flags = _knock(stage, 8081, _RST, "ConnectionRefusedError")
    why = "フィルターがなければ沈黙せず、RSTが返る"
    world.control("dropped-syn-meets-silence", _only_syns(flags), why=why, seen=" → ".join(flags))
    _drop(stage, 8081)
    flags = _knock(stage, 8081, _TWO_SYNS, "TimeoutError")
    why = "フィルターがSYNを捨てると、閉じたポートでもRSTは返らない"
    world.control("closed-port-answers-rst", "R." in flags, why=why, seen=" → ".join(flags))


def _server_that_accepts(stage: _Stage) -> None:
    world, here, there = stage.world, stage.here, stage.there
    world.section("accept", "acceptするサーバーにつなぐ")
    there("busy = socket.create_server(('192.0.2.2', 8083), backlog=2)")
    there.begin("peers = [busy.accept() for _ in range(5)]")
    here("sockets = [socket.create_connection(('192.0.2.2', 8083)) for _ in range(5)]")
    there.finish()
    made = len(world.do("ss -Htan dport = 8083 | sort", stage.client).all("^ESTAB"))
    why = "サーバーがacceptすれば、backlogが2でも5本すべてが成功する"
    world.control("accept-queue-is-backlog-plus-one", made == 3, why=why, seen=f"ESTABが{made}本")
