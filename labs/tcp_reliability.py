"""How TCP acknowledges, sends again and keeps the order, next to UDP, which does not."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from labs.harness import (
    Background,
    Lab,
    Namespace,
    Session,
    World,
    both,
    cut,
    feature,
    only,
    program,
    trial,
)

_QUOTA = (
    "ip netns add q && trap 'ip netns del q' EXIT && ip netns exec q nft add table ip t && "
    "ip netns exec q nft add chain ip t c && ip netns exec q nft add rule ip t c quota 9 bytes"
)

LAB = Lab(
    title="TCPの確認・再送・順序",
    chapter="protocols/tcp-reliability",
    shows="決まったパケットだけを捨て、確認の返り方、再送、読める順番をUDPと比べます。",
    topology=(("client", "eth0", "192.0.2.1/24"), ("server", "eth0", "192.0.2.2/24")),
    facts={
        "several-before-any-ack": "確認が1つも届かないうちに、10個のセグメントを送る",
        "timeout-doubles-the-wait": "時間切れの再送を繰り返すたびに、待つ時間は2倍になる",
        "one-ack-covers-many": "1つのACKが、それまでの10個のセグメントをまとめて確認する",
        "fewer-acks-than-segments": "データのセグメントより、ACKのほうが少ない",
        "gap-repeats-the-ack": "欠けた後のデータが届くたびに、同じ番号のACKがSACK付きで返る",
        "only-the-lost-goes-again": "再送されるのは、失われたセグメントだけである",
        "no-timeout-needed": "同じACKが重なれば、時間切れを待たずに再送する",
        "later-bytes-wait": "TCPでは、前が欠けている間、後に届いたデータを読めない",
        "order-is-restored": "欠けた分が再送されると、元の順番で読める",
        "udp-neither-waits-nor-repeats": "UDPでは、失われた分は届かず、後の分がすぐ読める",
    },
    needs=(
        program("ip", "iproute2"),
        program("ss", "iproute2"),
        program("tcpdump"),
        program("nft", "nftables"),
        program("python3"),
        feature("network-namespace"),
        feature("nftables"),
        trial("nftablesのquota", _QUOTA, "sudo modprobe nft_quota", "nftables"),
    ),
    seconds=6,
)

_SHORT = cut(r"nop,nop,TS val \d+ ecr \d+,?", r"win \d+")
_DATA = re.compile(r"192\.0\.2\.1\.\d+ > .*seq (\d+):(\d+)")
_ACK = re.compile(r"192\.0\.2\.2\.\d+ > 192\.0\.2\.1\.\d+: Flags \[\.\], ack (\d+),.* length 0$")
_TEN = 14480  # ten segments of 1448 bytes
_TRAFFIC = both(_SHORT, only(r"length [1-9]|sack 1|\[\.\], ack \d\d+,"))
_SLOW, _PLAIN, _LOSSY, _ALONE, _ORDER, _UDP = 8001, 8002, 8003, 8004, 8005, 8006


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
    client, server = world.network.pair("client", "server")
    world.say(
        "1つずつ見えるように、送信をまとめる機能を切ります。"
        "時間切れの前に試しに送る機能（TLP）も切ります。"
    )
    world.do("ip link set eth0 gso_max_segs 1", client)
    client.sysctl("net.ipv4.tcp_early_retrans=0")
    for hook in ("input", "output"):
        if hook == "input":
            world.do("nft add table ip lab", server)
        chain = f"{hook} '{{ type filter hook {hook} priority 0; }}'"
        world.do(f"nft add chain ip lab {chain}", server)
    here, there = world.python(client), world.python(server)
    here("import socket")
    there("import socket")
    return _Stage(world, client, server, here, there)


def run(world: World) -> None:
    """Hold back ACKs, count them, lose one segment, then lose one message in TCP and UDP."""
    stage = _set_up(world)
    _in_flight(stage)
    _delayed(stage)
    _lost(stage)
    _order(stage)
    _datagrams(stage)


def _connect(stage: _Stage, port: int) -> Background:
    """Open a connection, and return what captures it from its first segment on."""
    capture = stage.client.capture("eth0", f"tcp port {port}", options="-nn -t")
    stage.there(f"listener = socket.create_server(('192.0.2.2', {port}))")
    stage.here(f"connection = socket.create_connection(('192.0.2.2', {port}))")
    stage.there("peer, address = listener.accept()")
    return capture


def _filter(stage: _Stage, rule: str = "") -> None:
    """Replace the rules of the server's filter."""
    add = f"; nft add rule ip lab {rule}" if rule else ""
    stage.world.do(f"nft flush table ip lab{add}", stage.server)


def _data(capture: Background) -> list[int]:
    """Return the first number of each data segment, in the order sent."""
    return [int(found[1]) for line in capture.lines if (found := _DATA.search(line))]


def _acks(capture: Background) -> list[int]:
    """Return the numbers of the server's ACKs without data."""
    return [int(found[1]) for line in capture.lines if (found := _ACK.search(line))]


def _in_flight(stage: _Stage) -> None:
    world = stage.world
    world.section("in-flight", "確認を待たずに送る")
    world.say("確立した後、serverから返るものをすべて捨て、20個分のデータを送ります。")
    capture = _hold_back(stage)
    world.say("ACKが届かないので、時間切れの再送が始まります。rtoは次の再送までの時間です。")
    first, second = _timer(stage), _timer(stage, more=True)
    seen = "、".join(f"backoffが{n}のとき{wait}ms" for n, wait in (first, second))
    holds = second[1] == first[1] * 2 ** (second[0] - first[0])
    world.fact("timeout-doubles-the-wait", holds, seen=seen)
    world.say("捨てるのをやめます。次に再送されたセグメントに、1つのACKが答えます。")
    _filter(stage)
    sent, ack = _answered(stage, capture)
    world.fact("several-before-any-ack", sent == 10, seen=f"{sent}個")
    world.fact("one-ack-covers-many", ack == _TEN + 1, seen=f"ack {ack}")


def _hold_back(stage: _Stage) -> Background:
    """Send twenty segments while every answer of the server is dropped."""
    capture = _connect(stage, _SLOW)
    _filter(stage, f"output tcp sport {_SLOW} drop")
    stage.here("connection.setblocking(False)")
    stage.here(f"connection.send(bytes({2 * _TEN}))")
    return capture


def _timer(stage: _Stage, *, more: bool = False) -> tuple[int, int]:
    """Return how often the time-out was doubled, and its length in milliseconds."""
    command = f"ss -Htin dport = :{_SLOW} | grep -oE '(rto|backoff|unacked):[0-9]+'"
    hide, until = cut(r"(?<=rto:)\d+"), r"backoff:[2-9]" if more else r"backoff:\d"
    done = stage.world.do(command, stage.client, until=until, show=hide)
    return int(done.find(r"backoff:(\d+)")[1]), int(done.find(r"rto:(\d+)")[1])


def _answered(stage: _Stage, capture: Background) -> tuple[int, int]:
    """Return how many segments went before the first repeat, and the first ACK for data."""
    world = stage.world
    world.until(lambda: _acks_for_data(capture), "ACKが採取される")
    world.stop(capture, show=_until_the_ack)
    numbers = _data(capture)
    repeat = next(at for at, number in enumerate(numbers) if number in numbers[:at])
    return repeat, _acks_for_data(capture)[0]


def _acks_for_data(capture: Background) -> list[int]:
    return [number for number in _acks(capture) if number > 1]


def _until_the_ack(text: str) -> str:
    """Show each data segment once, up to the first ACK, which is shown too."""
    kept: list[str] = []
    for line in _SHORT(text).splitlines():
        if _DATA.search(line):
            kept.append("…" if line in kept else line)
        elif (found := _ACK.search(line)) and int(found[1]) > 1:
            return "\n".join([*dict.fromkeys(kept), line])
    return "\n".join(kept)


def _delayed(stage: _Stage) -> None:
    world = stage.world
    world.section("delayed", "ACKはまとめて返る")
    world.say(
        "Linuxは、始まりのうちはACKを1つずつ返します。"
        "`TCP_QUICKACK`を0にして、初めから遅らせる動作にします。"
    )
    data, acks = _forty(stage)
    seen = f"データ{data}個に、ACK{acks}個"
    world.fact("fewer-acks-than-segments", 3 * acks < 2 * data, seen=seen)


def _forty(stage: _Stage) -> tuple[int, int]:
    """Send 40 segments to a server that does not read; return how many, and the ACKs."""
    capture = _connect(stage, _PLAIN)
    stage.there("peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)")
    stage.here("connection.sendall(bytes(40 * 1448))")
    stage.world.until(lambda: 40 * 1448 + 1 in _acks(capture), "最後のACKが採取される")
    stage.world.stop(capture, show=_last_six)
    return len(_data(capture)), len(_acks(capture))


def _last_six(text: str) -> str:
    return "\n".join(["…", *_SHORT(text).splitlines()[-6:]])


def _lost(stage: _Stage) -> None:
    world = stage.world
    world.section("lost", "10個のうち1つ目だけを失う")
    world.say(
        "1500バイトのパケットを、合計2000バイトまで（つまり1個だけ）捨てます。後の9個は届きます。"
    )
    before = _timeouts(stage)
    capture = _ten(stage, f"input tcp dport {_LOSSY} ip length 1500 quota until 2000 bytes drop")
    timeouts = _timeouts(stage) - before
    repeats, again = _repeated_acks(capture), _sent_again(capture)
    world.fact("gap-repeats-the-ack", repeats >= 3, seen=f"SACK付きのack 1が{repeats}個")
    world.fact("only-the-lost-goes-again", again == [1], seen=f"2回送ったのはseq {again}だけ")
    world.fact("no-timeout-needed", timeouts == 0, seen=f"時間切れは{timeouts}回")


def _ten(stage: _Stage, rule: str = "") -> Background:
    """Send ten segments through a filter; return what was captured until all were confirmed."""
    capture = _connect(stage, _LOSSY)
    _filter(stage, rule)
    stage.here(f"connection.sendall(bytes({_TEN}))")
    stage.world.until(lambda: _TEN + 1 in _acks(capture), "最後のACKが採取される")
    stage.world.stop(capture, show=_TRAFFIC)
    return capture


def _sent_again(capture: Background) -> list[int]:
    return [number for number, times in Counter(_data(capture)).items() if times > 1]


def _repeated_acks(capture: Background) -> int:
    """Return how many ACKs with SACK blocks still wait for the first byte."""
    return len([line for line in capture.lines if "sack" in line and "ack 1," in line])


def _timeouts(stage: _Stage) -> int:
    counter = stage.world.ask("nstat -az TcpExtTCPTimeouts", stage.client)
    return int(counter.find(r"TCPTimeouts\s+(\d+)")[1])


def _order(stage: _Stage) -> None:
    world = stage.world
    world.section("order", "TCPは順番を守る")
    world.say("3バイトの1つ目だけを捨て（IPパケットでは55バイト）、5バイトの2つ目は通します。")
    waited = _nothing_to_read(stage, f"input tcp dport {_ORDER} ip length 55 drop")
    world.fact("later-bytes-wait", waited, seen="届いたのはb'three'、読めるものはない")
    world.say("捨てるのをやめると、1つ目が再送されます。")
    _filter(stage)
    stage.there("peer.setblocking(True)")
    text = stage.there("peer.recv(100)")
    world.fact("order-is-restored", text == "b'onethree'", seen=text)


def _nothing_to_read(stage: _Stage, rule: str = "") -> bool:
    """Send two messages; return whether the server, reached by the second, can read nothing."""
    world, there = stage.world, stage.there
    capture = _connect(stage, _ORDER)
    _filter(stage, rule)
    stage.here("connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)")
    stage.here("connection.sendall(b'one')")
    stage.here("connection.sendall(b'three')")
    world.until(lambda: _second_confirmed(capture), "2つ目への確認が採取される")
    world.stop(capture, show=_confirmation)
    there("peer.setblocking(False)")
    there.ask("import contextlib; seen = b''")
    there.ask("with contextlib.suppress(BlockingIOError): seen = peer.recv(1, socket.MSG_PEEK)")
    if there.ask("print(seen)") == "b''":
        there("peer.recv(100)", raises="BlockingIOError")
        return True
    there("peer.recv(100)")
    return False


def _second_confirmed(capture: Background) -> bool:
    return any("{4:9}" in line for line in capture.lines) or 9 in _acks(capture)


def _confirmation(text: str) -> str:
    lines = [line for line in _SHORT(text).splitlines() if "{4:9}" in line or "ack 9," in line]
    return "\n".join(["…", *lines[:1]])


def _datagrams(stage: _Stage) -> None:
    world = stage.world
    world.section("udp", "UDPは待たない")
    world.say("同じ2つをUDPで送り、1つ目（IPパケットでは31バイト）を捨てます。")
    read = _first_datagram(stage, f"input udp dport {_UDP} ip length 31 drop")
    seen = f"初めに読めたのは{read}"
    world.fact("udp-neither-waits-nor-repeats", read == "b'three'", seen=seen)


def _first_datagram(stage: _Stage, rule: str = "") -> str:
    """Send two datagrams and return the first that the server can read."""
    here, there = stage.here, stage.there
    _filter(stage, rule)
    there("datagrams = socket.socket(type=socket.SOCK_DGRAM)")
    there(f"datagrams.bind(('192.0.2.2', {_UDP}))")
    here("sender = socket.socket(type=socket.SOCK_DGRAM)")
    here(f"sender.sendto(b'one', ('192.0.2.2', {_UDP}))")
    here(f"sender.sendto(b'three', ('192.0.2.2', {_UDP}))")
    return there("datagrams.recv(100)")


def control(world: World) -> None:
    """Send one segment at a time, acknowledge each, lose nothing, or lose all but one."""
    stage = _set_up(world)
    _one_at_a_time(stage)
    _each_acknowledged(stage)
    _nothing_lost(stage)
    _nothing_after_it(stage)
    _both_arrive(stage)


def _one_at_a_time(stage: _Stage) -> None:
    world = stage.world
    world.section("one-at-a-time", "輻輳ウィンドウを1つ分から始める")
    world.do("ip route change 192.0.2.0/24 dev eth0 src 192.0.2.1 initcwnd 1", stage.client)
    capture = _hold_back(stage)
    _timer(stage)
    _filter(stage)
    sent, first = _answered(stage, capture)
    why = "ウィンドウが1つ分なら、確認が届くまで次を送れない"
    world.control("several-before-any-ack", sent == 10, why=why, seen=f"{sent}個")
    why = "送ったのが1つなら、ACKが確認するのも1つである"
    world.control("one-ack-covers-many", first == _TEN + 1, why=why, seen=f"ack {first}")
    world.do("ip route change 192.0.2.0/24 dev eth0 src 192.0.2.1", stage.client)


def _each_acknowledged(stage: _Stage) -> None:
    world = stage.world
    world.section("each-acknowledged", "1つずつACKを返す経路にする")
    world.do("ip route change 192.0.2.0/24 dev eth0 src 192.0.2.2 quickack 1", stage.server)
    data, acks = _forty(stage)
    why = "遅らせなければ、セグメントごとにACKが返る"
    seen = f"データ{data}個に、ACK{acks}個"
    world.control("fewer-acks-than-segments", 3 * acks < 2 * data, why=why, seen=seen)
    world.do("ip route change 192.0.2.0/24 dev eth0 src 192.0.2.2", stage.server)


def _nothing_lost(stage: _Stage) -> None:
    world = stage.world
    world.section("nothing-lost", "何も失わずに10個を送る")
    capture = _ten(stage)
    repeats, again = _repeated_acks(capture), _sent_again(capture)
    why = "欠けがなければ、ACKの番号は進む"
    seen = f"SACK付きのack 1は{repeats}個"
    world.control("gap-repeats-the-ack", repeats >= 3, why=why, seen=seen)
    why = "失われなければ、再送もない"
    seen = f"2回送ったセグメントは{len(again)}個"
    world.control("only-the-lost-goes-again", again == [1], why=why, seen=seen)


def _nothing_after_it(stage: _Stage) -> None:
    """Lose the only segment sent: no later one makes the server repeat its ACK."""
    world = stage.world
    world.section("nothing-after-it", "失われた後に続くものがない")
    before = _timeouts(stage)
    capture = _connect(stage, _ALONE)
    _filter(stage, f"input tcp dport {_ALONE} ip length 1500 quota until 2000 bytes drop")
    stage.here("connection.sendall(bytes(1448))")
    world.until(lambda: 1449 in _acks(capture), "ACKが採取される")
    world.stop(capture, show=_TRAFFIC)
    timeouts = _timeouts(stage) - before
    why = "同じACKが重ならなければ、時間切れを待って再送する"
    world.control("no-timeout-needed", timeouts == 0, why=why, seen=f"時間切れは{timeouts}回")


def _both_arrive(stage: _Stage) -> None:
    world = stage.world
    world.section("both-arrive", "2つとも届ける")
    waited = _nothing_to_read(stage)
    why = "前が欠けていなければ、届いた分から読める"
    world.control("later-bytes-wait", waited, why=why, seen="読める")
    read = _first_datagram(stage)
    why = "失われなければ、UDPでも1つ目から読める"
    holds = read == "b'three'"
    world.control("udp-neither-waits-nor-repeats", holds, why=why, seen=read)
