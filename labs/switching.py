"""What a switch learns and floods, where a router ends a broadcast, and what a loop does."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from labs.harness import Done, Lab, Namespace, World, both, cut, feature, head, only, program

LAB = Lab(
    title="スイッチの学習・フラッディング・ループ",
    chapter="network/devices",
    shows="Linuxのブリッジをスイッチに見立て、フレームがどのポートに届くかを見ます。",
    topology=(
        ("pc1", "eth0", "192.0.2.1/24"),
        ("pc2", "eth0", "192.0.2.2/24"),
        ("pc3", "eth0", "192.0.2.3/24"),
        ("router", "eth0", "192.0.2.254/24"),
        ("router", "eth1", "198.51.100.254/24"),
        ("pc4", "eth0", "198.51.100.4/24"),
        ("moved", "eth0", "192.0.2.2/24"),
        ("pc1", "eth0", "2001:db8:1::1/64"),
        ("pc3", "eth0", "2001:db8:1::3/64"),
        ("router", "eth0", "2001:db8:1::254/64"),
        ("router", "eth1", "2001:db8:2::254/64"),
        ("pc4", "eth0", "2001:db8:2::4/64"),
        ("pc5", "eth0", "203.0.113.5/24"),
        ("pc6", "eth0", "203.0.113.6/24"),
    ),
    facts={
        "unknown-is-flooded": "FDBにない宛先へのフレームは、関係のないポートにも送られる",
        "known-goes-to-one-port": "学習した宛先へのフレームは、関係のないポートには送られない",
        "source-is-learned": "フレームの送信元MACが、受けたポートとともにFDBに載る",
        "bystander-drops-it": "他人あてのフレームが届いても、IPには渡らない",
        "switch-changes-nothing": "スイッチを通っても、MACアドレスもTTLも変わらない",
        "broadcast-reaches-every-port": "ブロードキャストは、受けたポート以外のすべてに届く",
        "flush-floods-again": "FDBを消すと、学習し直すまでフラッディングに戻る",
        "silent-host-ages-out": "黙っている端末の記録は、期限が過ぎるとFDBから消える",
        "moved-host-updates-table": "端末が別のポートから送ると、FDBのポートが書き換わる",
        "hub-repeats-everything": "学習しない（ハブと同じ）なら、応答も2回目も全ポートに届く",
        "router-stops-broadcast": "ルーターは、ブロードキャストを隣のネットワークに渡さない",
        "router-stops-all-nodes": "IPv6で全員あてのff02::1も、ルーターを越えない",
        "router-makes-new-frame": "ルーターを通ると、MACアドレスが両方替わり、TTLが1減る",
        "loop-multiplies-one-frame": "ループがあると、1つのブロードキャストが100回以上届く",
        "loop-keeps-ttl": "スイッチのループを回るフレームのTTLは、減らない",
        "loop-confuses-table": "ループがあると、隣のPCのMACがスイッチ間のポートに載る",
        "stp-blocks-one-port": "STPを動かすと、ループになるポートの1つだけがblockingになる",
        "stp-delivers-once": "STPを動かすと、2本つないでもブロードキャストは1回だけ届く",
        "stp-spare-takes-over": "使っていたケーブルを抜くと、止めていたポートが動いて届く",
    },
    needs=(
        program("ip", "iproute2"),
        program("bridge", "iproute2"),
        program("nstat", "iproute2"),
        program("ping", "iputils-ping"),
        program("tcpdump"),
        feature("network-namespace"),
        feature("bridge"),
    ),
    seconds=40,
    limit=120,
)

_MAC = r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
_ECHO = re.compile(
    r"(?P<source>[\d.]+) > (?P<target>[\d.]+): ICMP echo (?P<kind>request|reply).*?seq (?P<seq>\d+)"
)
_FRAME = re.compile(
    rf"(?P<source>{_MAC}) > (?P<target>{_MAC}), .*?ttl (?P<ttl>\d+),.*?\n.*?ICMP echo request"
)
_SHORT = cut(r"id \d+, ", r", length \d+")
_HEADERS = cut(r"tos 0x0, ", r"(?<=ttl \d\d, ).*?(?=\n)", r"(?<=echo request).*")
_COUNT = both(only("packets transmitted"), cut(r"(?<=packet loss), time.*"))
_TO_ALL = "ping -b -q -c 1 -W 0.2 192.0.2.255 2>&1 | grep transmitted"
_ALL_NODES = "ff02::1"
_V6 = (
    "net.ipv6.conf.{all,default,eth0}.disable_ipv6=0 net.ipv6.conf.{all,default,eth0}.accept_dad=0"
    " net.ipv6.conf.{all,default,eth0}.accept_ra=0"
)


@dataclass(frozen=True)
class _Stage:
    """A switch with three computers and a router, and one computer behind the router."""

    world: World
    switch: Namespace
    pc1: Namespace
    pc2: Namespace
    pc3: Namespace
    router: Namespace
    pc4: Namespace


def _set_up(world: World) -> _Stage:
    world.section("hosts", "スイッチにPC3台とルーターをつなぐ")
    world.say("名前空間switchのブリッジbr0がスイッチ、p1からp4がそのポートです。")
    network = world.network
    switch = network.namespace("switch")
    pcs = [network.namespace(f"pc{number}") for number in range(1, 5)]
    router = network.router("router")
    for number, pc in enumerate(pcs[:3], 1):
        network.cable((pc, "eth0", f"192.0.2.{number}/24"), (switch, f"p{number}", ""))
    network.cable((router, "eth0", "192.0.2.254/24"), (switch, "p4", ""))
    network.cable((router, "eth1", "198.51.100.254/24"), (pcs[3], "eth0", "198.51.100.4/24"))
    network.bridge(switch, "br0", "p1", "p2", "p3", "p4")
    pcs[0].route("default", "192.0.2.254")
    pcs[3].route("default", "198.51.100.254")
    stage = _Stage(world, switch, pcs[0], pcs[1], pcs[2], router, pcs[3])
    _know_each_other(stage)
    return stage


def _mac(stage: _Stage, host: Namespace, interface: str = "eth0") -> str:
    return stage.world.ask(f"ip -br link show {interface}", host).find(_MAC)[0]


def _know_each_other(stage: _Stage) -> None:
    """Write the MAC addresses of pc1 and pc2 down, so that no ARP teaches the switch."""
    stage.world.say("pc1とpc2には、互いのMACアドレスを教えておきます。ARPを流さないためです。")
    for host, address, other in (
        (stage.pc1, "192.0.2.2", stage.pc2),
        (stage.pc2, "192.0.2.1", stage.pc1),
    ):
        mac = _mac(stage, other)
        stage.world.do(f"ip neigh replace {address} lladdr {mac} dev eth0 nud permanent", host)


def run(world: World) -> None:
    """Let a switch learn and forget, put a router beside it, then close a loop of switches."""
    stage = _set_up(world)
    _learn(stage)
    _bystander(stage)
    _unchanged(stage)
    _broadcast(stage)
    _forget(stage)
    _move(stage)
    _hub(stage)
    _router(stage)
    _loop(world)


# Looking


def _echoes(text: str) -> list[tuple[str, str, str]]:
    """Return the echo messages as (target, kind, sequence number)."""
    return [(x["target"], x["kind"], x["seq"]) for x in _ECHO.finditer(text)]


def _overheard(stage: _Stage, action: Callable[[], object]) -> list[tuple[str, str, str]]:
    """Capture at pc3 while something is done, up to a broadcast that marks the end."""
    world = stage.world
    capture = stage.pc3.capture("eth0", "icmp", options="-nn -t")
    action()
    world.do(_TO_ALL, stage.pc1, code=None, show=_COUNT)
    capture.wait_for(r"192\.0\.2\.255")
    text = world.stop(capture, show=_SHORT).text
    return [x for x in _echoes(text) if x[0] != "192.0.2.255"]


def _twice(stage: _Stage) -> list[tuple[str, str, str]]:
    ping = "ping -q -c 2 -i 0.2 -W 5 192.0.2.2"
    return _overheard(stage, lambda: stage.world.do(ping, stage.pc1, show=_COUNT))


def _once(stage: _Stage) -> list[tuple[str, str, str]]:
    ping = "ping -q -c 1 -W 5 192.0.2.2"
    return _overheard(stage, lambda: stage.world.do(ping, stage.pc1, show=_COUNT))


def _table(stage: _Stage, until: str = "") -> Done:
    command = "bridge fdb show br br0 dynamic | sort -k 3"
    return stage.world.do(command, stage.switch, until=until)


def _flush(stage: _Stage) -> None:
    stage.world.do("ip link set br0 type bridge fdb_flush", stage.switch)


# The switch


def _learn(stage: _Stage) -> None:
    world = stage.world
    world.section("learning", "学習する前と後を、関係のないpc3で見る")
    world.say("まだ何も流れていないので、FDBは空です。")
    _table(stage)
    world.say("pc1からpc2へ2回pingします。採取するのは、関係のないpc3です。")
    heard = _twice(stage)
    seen = f"pc3に届いたのは{_describe(heard)}"
    world.fact("unknown-is-flooded", _first_request(heard), seen=seen)
    world.fact("known-goes-to-one-port", not _later(heard), seen="応答と2回目は届かない")
    world.say("この2回で、FDBに2台が載りました。")
    _learned(stage)


def _describe(heard: list[tuple[str, str, str]]) -> str:
    names = {"request": "要求", "reply": "応答"}
    return "、".join(f"{seq}回目の{names[kind]}" for _, kind, seq in heard) or "なし"


def _first_request(heard: list[tuple[str, str, str]]) -> bool:
    return ("192.0.2.2", "request", "1") in heard


def _later(heard: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Return what came after the first request: replies, and the second request."""
    return [x for x in heard if x[1:] != ("request", "1")]


def _entries(done: Done) -> dict[str, str]:
    return dict(re.findall(rf"({_MAC}) dev (\w+) ", done.text))


def _has_both(stage: _Stage, done: Done) -> bool:
    entries = _entries(done)
    return (entries.get(_mac(stage, stage.pc1)), entries.get(_mac(stage, stage.pc2))) == (
        "p1",
        "p2",
    )


def _learned(stage: _Stage) -> None:
    holds = _has_both(stage, _table(stage))
    stage.world.fact("source-is-learned", holds, seen="pc1のMACはp1、pc2のMACはp2")


def _received(stage: _Stage) -> tuple[int, int]:
    """Return how many frames pc3's interface took in, and how many packets its IP."""
    world = stage.world
    frames = world.ask("ip -s link show eth0 | sed -n '4p'", stage.pc3).find(r"\d+ +(\d+)")
    packets = world.ask("nstat -asz IpInReceives", stage.pc3).find(r"IpInReceives +(\d+)")
    return int(frames[1]), int(packets[1])


def _counted(stage: _Stage, target: str) -> tuple[int, int]:
    """Ping, and return how many more frames and packets pc3 counted."""
    world = stage.world
    before = _received(stage)
    world.do(f"ping -q -c 1 -W 5 {target}", stage.pc1, show=_COUNT)
    world.until(lambda: _received(stage)[0] > before[0], "pc3にフレームが届く")
    after = _received(stage)
    return after[0] - before[0], after[1] - before[1]


def _bystander(stage: _Stage) -> None:
    world = stage.world
    world.section("bystander", "他人あてのフレームを受けたpc3は、どうするか")
    world.say("FDBを消してからpc1からpc2へpingし、pc3の2つのカウンターを比べます。")
    _flush(stage)
    frames, packets = _counted(stage, "192.0.2.2")
    seen = f"eth0が受けたフレームは{frames}つ、IPが受けたパケットは{packets}つ"
    world.fact("bystander-drops-it", packets == 0, seen=seen)


def _both_ends(stage: _Stage, far: Namespace, target: str) -> list[re.Match[str]]:
    """Ping and return the request as it left pc1 and as it came to the other end."""
    world = stage.world
    what, options = "'icmp[icmptype] = icmp-echo'", "-nn -e -t -v"
    captures = [host.capture("eth0", what, options) for host in (stage.pc1, far)]
    world.do(f"ping -q -c 1 -W 5 {target}", stage.pc1, show=_COUNT)
    for capture in captures:
        capture.wait_for(r"echo request")
    world.say(f"pc1を出たとき、{far.name}に着いたときの順です。")
    texts = [world.stop(capture, show=_HEADERS).text for capture in captures]
    return [found for text in texts if (found := _FRAME.search(text))]


def _unchanged(stage: _Stage) -> None:
    world = stage.world
    world.section("unchanged", "スイッチの前と後で、フレームを比べる")
    near, far = _both_ends(stage, stage.pc2, "192.0.2.2")
    holds = near.groups() == far.groups()
    seen = f"2つのMACアドレスは同じ、TTLは{near['ttl']}と{far['ttl']}"
    world.fact("switch-changes-nothing", holds, seen=seen)


def _who_hears(stage: _Stage) -> list[int]:
    """Broadcast from pc1; return how often it came to pc2, pc3 and the router."""
    world = stage.world
    hosts = (stage.pc2, stage.pc3, stage.router)
    captures = [x.capture("eth0", "'icmp and ether broadcast'", "-nn -t") for x in hosts]
    world.do(_TO_ALL, stage.pc1, code=None, show=_COUNT)
    captures[2].wait_for(r"192\.0\.2\.255")
    world.say("pc2、pc3、routerの順です。")
    return [len(_echoes(world.stop(x, show=_SHORT).text)) for x in captures]


def _broadcast(stage: _Stage) -> None:
    world = stage.world
    world.section("broadcast", "ブロードキャストを送る")
    world.say("pc1からブロードキャストを1つ送ります。返事は誰もしません。")
    heard = _who_hears(stage)
    seen = "、".join(f"{x}つ" for x in heard)
    world.fact("broadcast-reaches-every-port", heard == [1, 1, 1], seen=f"届いた数は{seen}")


def _forget(stage: _Stage) -> None:
    world = stage.world
    world.section("forgetting", "FDBを消す、黙って待つ")
    world.say("学習し終えた状態で1回、FDBを消してから1回pingし、どちらもpc3で採取します。")
    before = _once(stage)
    _flush(stage)
    heard = _once(stage)
    holds = not before and _first_request(heard)
    seen = f"消す前は{_describe(before)}、消した後は{_describe(heard)}"
    world.fact("flush-floods-again", holds, seen=seen)
    world.say("期限（既定は300秒）を2秒に縮めて、誰も送らずに待ちます。単位は1/100秒です。")
    _table(stage)
    gone = _age(stage)
    world.fact("silent-host-ages-out", gone, seen="FDBが空になった")
    world.do("ip link set br0 type bridge ageing_time 30000", stage.switch)


def _age(stage: _Stage) -> bool:
    """Wait until what was learned has aged out; return whether pc2 is gone from the table."""
    world = stage.world
    world.do("ip link set br0 type bridge ageing_time 200", stage.switch)
    _table(stage, until=r"(?s)\A(?!.* dev p1 )")
    done = world.do("bridge fdb show br br0 | grep 'p2 .*static'", stage.switch, code=None)
    return not done.has(_mac(stage, stage.pc2))


def _plug_in_moved(stage: _Stage, mac: str = "") -> Namespace:
    """Plug one more host in at p5; with a MAC address it takes another one's place."""
    world = stage.world
    moved = world.network.namespace("moved")
    world.network.cable((moved, "eth0", "192.0.2.2/24"), (stage.switch, "p5", ""))
    world.set_up("ip -n switch link set p5 master br0")
    if mac:
        world.do(f"ip link set eth0 address {mac}", moved)
    return moved


def _speaks(stage: _Stage, moved: Namespace) -> str:
    """Let the new host send one broadcast; return the port where pc2's address is now."""
    world = stage.world
    capture = stage.pc1.capture("eth0", "'icmp and ether broadcast'", "-nn -t")
    world.do(_TO_ALL, moved, code=None, show=_COUNT)
    capture.wait_for(r"192\.0\.2\.255")
    world.stop(capture, show=_SHORT)
    return _entries(_table(stage)).get(_mac(stage, stage.pc2), "")


def _move(stage: _Stage) -> None:
    world = stage.world
    world.section("moving", "端末が別のポートへ移る")
    world.say("pc2がp2にいると覚えさせます。")
    world.do("ping -q -c 1 -W 5 192.0.2.2", stage.pc1, show=_COUNT)
    before = _entries(_table(stage)).get(_mac(stage, stage.pc2), "")
    world.say("仮想マシンの引っ越しをまねて、同じMACアドレスの端末movedをp5につなぎます。")
    world.say("movedがブロードキャストを1つ送ると、FDBの記録がどう変わるかを見ます。")
    moved = _plug_in_moved(stage, _mac(stage, stage.pc2))
    after = _speaks(stage, moved)
    holds = (before, after) == ("p2", "p5")
    world.fact("moved-host-updates-table", holds, seen=f"{before}から{after}へ")
    world.say("movedを外します。")
    world.set_up("ip -n switch link del p5")


def _learning(stage: _Stage, on: str) -> None:
    for port in ("p1", "p2"):
        stage.world.do(f"bridge link set dev {port} learning {on}", stage.switch)
    _flush(stage)


def _hub(stage: _Stage) -> None:
    world = stage.world
    world.section("hub", "学習を止めて、ハブにする")
    _learning(stage, "off")
    world.say("同じ2回のpingを、pc3で採取します。")
    heard = _twice(stage)
    holds = len(heard) == 4
    world.fact("hub-repeats-everything", holds, seen=f"届いたのは{_describe(heard)}")
    world.say("学習を元に戻します。")
    _learning(stage, "on")


# The router


def _beyond(stage: _Stage, command: str, marker: str, what: str) -> tuple[bool, bool]:
    """Send to all, then to pc4 alone; return whether the first came to pc3, and to pc4."""
    world = stage.world
    hosts = (stage.pc3, stage.pc4)
    captures = [x.capture("eth0", "'icmp or icmp6'", "-nn -t") for x in hosts]
    world.do(command, stage.pc1, code=None, show=_COUNT)
    captures[0].wait_for(what)
    world.do(marker, stage.pc1, show=_COUNT)
    captures[1].wait_for(r"echo request")
    world.say("pc3に届いたもの、pc4に届いたものの順です。")
    view = both(only("echo request"), _SHORT)
    texts = [world.stop(x, show=view).text for x in captures]
    return bool(re.search(what, texts[0])), bool(re.search(what, texts[1]))


def _broadcast_beyond(stage: _Stage, far: str = "198.51.100.4") -> tuple[bool, bool]:
    to_all = _TO_ALL.replace("192.0.2.255", "255.255.255.255")
    return _beyond(stage, to_all, f"ping -q -c 1 -W 5 {far}", r"> 255\.255\.255\.255: ICMP echo r")


def _all_nodes_beyond(stage: _Stage, far: str = "2001:db8:2::4") -> tuple[bool, bool]:
    to_all = f"ping -6 -q -c 1 -W 0.2 -I eth0 {_ALL_NODES} | grep transmitted"
    return _beyond(stage, to_all, f"ping -6 -q -c 1 -W 5 {far}", rf"> {_ALL_NODES}: ICMP6, echo r")


def _enable_ipv6(stage: _Stage) -> None:
    """Bring IPv6 up on the way from pc1 to pc4."""
    world = stage.world
    for host in (stage.pc1, stage.pc3, stage.pc4, stage.router):
        world.ask(f"sysctl -qw {_V6}", host)
    both_sides = "net.ipv6.conf.eth1.disable_ipv6=0 net.ipv6.conf.eth1.accept_dad=0"
    world.ask(f"sysctl -qw {both_sides} net.ipv6.conf.all.forwarding=1", stage.router)
    stage.pc1.address("eth0", "2001:db8:1::1/64")
    stage.pc3.address("eth0", "2001:db8:1::3/64")
    stage.router.address("eth0", "2001:db8:1::254/64")
    stage.router.address("eth1", "2001:db8:2::254/64")
    stage.pc4.address("eth0", "2001:db8:2::4/64")
    stage.pc1.route("default", "2001:db8:1::254")
    stage.pc4.route("default", "2001:db8:2::254")


def _router(stage: _Stage) -> None:
    world = stage.world
    world.section("router", "ルーターの先へ送る")
    world.say("全員あてのブロードキャストを送り、続けてpc4だけにpingします。")
    near, far = _broadcast_beyond(stage)
    seen = "pc3には届き、ルーターの先のpc4には届かない"
    world.fact("router-stops-broadcast", near and not far, seen=seen)
    world.say("pc4へのpingを、pc1とpc4の両方で見ます。")
    one, other = _both_ends(stage, stage.pc4, "198.51.100.4")
    seen = f"MACアドレスは両方とも別の値、TTLは{one['ttl']}から{other['ttl']}"
    world.fact("router-makes-new-frame", _new_frame(one, other), seen=seen)
    world.section("router-ipv6", "IPv6でも同じことを試す")
    world.say("pc1、pc3、pc4とrouterのIPv6を有効にします。IPv6のルーターも兼ねさせます。")
    _enable_ipv6(stage)
    near, far = _all_nodes_beyond(stage)
    seen = "pc3には届き、ルーターの先のpc4には届かない"
    world.fact("router-stops-all-nodes", near and not far, seen=seen)


def _new_frame(one: re.Match[str], other: re.Match[str]) -> bool:
    macs = one["source"] != other["source"] and one["target"] != other["target"]
    return macs and int(one["ttl"]) - int(other["ttl"]) == 1


# The loop


@dataclass(frozen=True)
class _Ring:
    """Two switches in one namespace, joined by two cables, and a computer at each."""

    world: World
    switches: Namespace
    pc5: Namespace
    pc6: Namespace


_ALL_THERE = "ping -b -q -c 1 -W 1 203.0.113.255 2>&1 | grep transmitted"
_CUT = "ip -n switches link set t3 down"
"""Run in the shell that sends, so that the storm ends without waiting for this program."""


def _close_ring(world: World) -> _Ring:
    world.say("スイッチsw1とsw2を、t1・t2とt3・t4の2本のケーブルでつなぎます。")
    world.say("mcast_snooping 0で、スイッチ自身がIGMPを送らないようにします。")
    network = world.network
    switches, pc5, pc6 = (network.namespace(x) for x in ("switches", "pc5", "pc6"))
    network.cable((pc5, "eth0", "203.0.113.5/24"), (switches, "p5", ""))
    network.cable((pc6, "eth0", "203.0.113.6/24"), (switches, "p6", ""))
    network.cable((switches, "t1", ""), (switches, "t2", ""))
    network.cable((switches, "t3", ""), (switches, "t4", ""))
    network.bridge(switches, "sw1", "p5", "t1", "t3", options="mcast_snooping 0")
    network.bridge(switches, "sw2", "p6", "t2", "t4", options="mcast_snooping 0")
    return _Ring(world, switches, pc5, pc6)


def _loop(world: World) -> None:
    world.section("ring", "2台のスイッチを、2本のケーブルでつなぐ")
    ring = _close_ring(world)
    world.section("loop", "ループに、ブロードキャストを1つだけ送る")
    world.say("pc5からブロードキャストを1つだけ送り、1秒たったら、t3を落としてループを切ります。")
    copies, frames, port = _storm(ring)
    world.fact("loop-multiplies-one-frame", copies >= 100, seen=f"pc6に{copies}回届いた")
    ttls = sorted(set(frames))
    world.fact("loop-keeps-ttl", ttls == ["64"], seen=f"届いたもののTTLは、どれも{ttls[0]}")
    holds = port in {"t1", "t3"}
    world.fact("loop-confuses-table", holds, seen=f"pc5はp5にいるのに、{port}に載った")
    _span(ring)


def _copies(ring: _Ring) -> int:
    """Return how many broadcasts pc6's IP has taken in."""
    counter = ring.world.ask("nstat -asz IpExtInBcastPkts", ring.pc6)
    return int(counter.find(r"IpExtInBcastPkts +(\d+)")[1])


def _mac5(ring: _Ring) -> str:
    return ring.world.ask("ip -br link show eth0", ring.pc5).find(_MAC)[0]


def _storm(ring: _Ring) -> tuple[int, list[str], str]:
    """Send one broadcast into the ring for a second; return copies, TTLs, and pc5's port."""
    world = ring.world
    capture = ring.pc6.capture("eth0", "icmp", options="-nn -t -v -c 20")
    before, mac = _copies(ring), _mac5(ring)
    look = f"bridge -n switches fdb show br sw1 | grep '{mac}' | head -n 1"
    done = world.do(f"{_ALL_THERE}; {look}; {_CUT}", ring.pc5, show=_STORM)
    copies = _copies(ring) - before
    world.until(lambda: capture.lines, "pc6に届く")
    text = world.stop(capture, show=both(head(6), _HEADERS)).text
    port = done.find(rf"{mac} dev (\w+) ")[1]
    return copies, re.findall(r"ttl (\d+),", text), port


_STORM = cut(r"(?<=dev )t\d", r"(?<=packet loss), time.*")


def _ports(ring: _Ring, until: str) -> Done:
    return ring.world.do(
        "bridge link show | grep -o -e '[pt][1-6][@:].*' | sed 's/[@:].* state/ state/' | sort",
        ring.switches,
        until=until,
        show=cut(r" priority.*"),
    )


def _stp(ring: _Ring) -> None:
    """Turn STP on with the shortest delay the kernel allows; sw1 is the root."""
    world = ring.world
    world.say("STPを有効にします。待ち時間は最短（2秒ずつ）にし、sw1をルートにします。")
    options = "forward_delay 200 hello_time 100"
    world.do(f"ip link set sw1 type bridge {options} priority 4096 stp_state 1", ring.switches)
    world.do(f"ip link set sw2 type bridge {options} stp_state 1", ring.switches)


def _span(ring: _Ring) -> None:
    world = ring.world
    world.section("stp", "STPでループを防ぐ")
    _stp(ring)
    world.say("抜いたケーブルを戻し、ポートの状態が落ち着くのを待ちます。")
    world.do("ip link set t3 up", ring.switches)
    done = _ports(ring, _SETTLED)
    blocked = done.all(r"^(\w+) state blocking")
    world.fact("stp-blocks-one-port", len(blocked) == 1, seen=f"止まったのは{blocked[0]}")
    world.say("2本つないだまま、ブロードキャストを1つ送ります。採取はpc6です。")
    seen = _arrivals(ring)
    world.fact("stp-delivers-once", seen == 1, seen=f"pc6に{seen}回届いた")
    world.section("stp-failure", "使っているケーブルを抜く")
    world.say("使っているケーブルをt1の側で落とします。")
    answered = _unplug(ring)
    world.fact("stp-spare-takes-over", answered, seen="t4がforwardingになり、pingに応答")


_SETTLED = r"(?s)\A(?!.*(listening|learning|disabled)).*t4 state blocking"


def _arrivals(ring: _Ring, then: str = "") -> int:
    """Broadcast from pc5, and return how often it came to pc6 within a second (at most 20)."""
    world = ring.world
    capture = ring.pc6.capture("eth0", "'icmp and ether broadcast'", options="-nn -t -c 20")
    world.do("; ".join(filter(None, (_ALL_THERE, then))), ring.pc5, code=None, show=_COUNT)
    world.until(lambda: capture.lines, "pc6に届く")
    return len(_echoes(world.stop(capture, show=both(head(3), _SHORT)).text))


def _unplug(ring: _Ring, until: str = r"(?s)t4 state forwarding") -> bool:
    world = ring.world
    world.do("ip link set t1 down", ring.switches)
    _ports(ring, until)
    ping = "ping -q -c 1 -W 1 203.0.113.6"
    return world.do(ping, ring.pc5, code=None, show=_COUNT).has(" 1 received")


# The control


def control(world: World) -> None:
    """Take the causes away: learning, forgetting, the router, the ring, the spare cable."""
    stage = _set_up(world)
    _taught(stage)
    _not_flushed(stage)
    _addressed(stage)
    _unlearning(stage)
    _one_port_closed(stage)
    _another_address(stage)
    _bridge_for_router(stage)
    _no_ring(world)


def _teach(stage: _Stage) -> None:
    mac = _mac(stage, stage.pc2)
    stage.world.do(f"bridge fdb replace {mac} dev p2 master static", stage.switch)


def _taught(stage: _Stage) -> None:
    world = stage.world
    world.section("taught", "pc2のMACアドレスを、初めからFDBに書いておく")
    _teach(stage)
    heard = _twice(stage)
    seen = f"pc3に届いたのは{_describe(heard)}"
    why = "宛先がFDBにあれば、初めの1回もフラッディングしない"
    world.control("unknown-is-flooded", _first_request(heard), why=why, seen=seen)
    why = "学習するスイッチは、応答も2回目も全ポートには送らない"
    world.control("hub-repeats-everything", len(heard) == 4, why=why, seen=seen)
    gone = _age(stage)
    why = "手で書いた記録（static）は、期限が過ぎても消えない"
    world.control("silent-host-ages-out", gone, why=why, seen="pc1は消え、pc2は残った")
    world.do("ip link set br0 type bridge ageing_time 30000", stage.switch)
    mac = _mac(stage, stage.pc2)
    world.do(f"bridge fdb del {mac} dev p2 master", stage.switch)


def _not_flushed(stage: _Stage) -> None:
    world = stage.world
    world.section("not-flushed", "FDBを消さない")
    world.do("ping -q -c 1 -W 5 192.0.2.2", stage.pc1, show=_COUNT)
    heard = _once(stage)
    why = "FDBを消さなければ、フラッディングに戻らない"
    seen = f"pc3に届いたのは{_describe(heard)}"
    world.control("flush-floods-again", _first_request(heard), why=why, seen=seen)


def _addressed(stage: _Stage) -> None:
    world = stage.world
    world.section("addressed", "pc3あてに送る、ルーターの先へ送る")
    frames, packets = _counted(stage, "192.0.2.3")
    why = "自分あてのフレームなら、IPに渡る"
    seen = f"eth0が受けたフレームは{frames}つ、IPが受けたパケットは{packets}つ"
    world.control("bystander-drops-it", packets == 0, why=why, seen=seen)
    near, far = _both_ends(stage, stage.pc4, "198.51.100.4")
    why = "間にルーターがあれば、MACアドレスもTTLも変わる"
    seen = f"TTLは{near['ttl']}と{far['ttl']}"
    holds = near.groups() == far.groups()
    world.control("switch-changes-nothing", holds, why=why, seen=seen)


def _unlearning(stage: _Stage) -> None:
    world = stage.world
    world.section("unlearning", "学習を止める")
    _learning(stage, "off")
    heard = _twice(stage)
    why = "学習しなければ、応答も2回目も全ポートに送られる"
    seen = f"pc3に届いたのは{_describe(heard)}"
    world.control("known-goes-to-one-port", not _later(heard), why=why, seen=seen)
    holds = _has_both(stage, _table(stage))
    why = "学習を止めたポートからは、何も載らない"
    world.control("source-is-learned", holds, why=why, seen="pc1もpc2も載っていない")
    _learning(stage, "on")


def _one_port_closed(stage: _Stage) -> None:
    world = stage.world
    world.section("one-port-closed", "p3だけ、ブロードキャストを送らない設定にする")
    world.do("ip link set p3 type bridge_slave bcast_flood off", stage.switch)
    heard = _who_hears(stage)
    why = "その設定のポートには、ブロードキャストが送られない"
    seen = "届いた数は" + "、".join(f"{x}つ" for x in heard)
    world.control("broadcast-reaches-every-port", heard == [1, 1, 1], why=why, seen=seen)
    world.do("ip link set p3 type bridge_slave bcast_flood on", stage.switch)


def _another_address(stage: _Stage) -> None:
    world = stage.world
    world.section("another-address", "p5に、別のMACアドレスの端末をつなぐ")
    world.do("ping -q -c 1 -W 5 192.0.2.2", stage.pc1, show=_COUNT)
    before = _entries(_table(stage)).get(_mac(stage, stage.pc2), "")
    after = _speaks(stage, _plug_in_moved(stage))
    why = "送信元のMACアドレスが違えば、pc2の記録は変わらない"
    seen = f"{before}から{after}へ"
    world.control("moved-host-updates-table", (before, after) == ("p2", "p5"), why=why, seen=seen)
    world.set_up("ip -n switch link del p5")


def _bridge_for_router(stage: _Stage) -> None:
    world = stage.world
    world.section("bridge-for-router", "ルーターを、スイッチに替える")
    _enable_ipv6(stage)
    world.network.bridge(stage.router, "br1", "eth0", "eth1")
    world.say("pc1とpc4は、互いを直接つながった相手として扱います。")
    for host in (stage.pc1, stage.pc4):
        world.do("ip route replace default dev eth0; ip -6 route replace default dev eth0", host)
    near, far = _broadcast_beyond(stage)
    why = "間がスイッチなら、ブロードキャストはpc4にも届く"
    seen = "pc3にもpc4にも届いた"
    world.control("router-stops-broadcast", near and not far, why=why, seen=seen)
    near, far = _all_nodes_beyond(stage)
    why = "間がスイッチなら、ff02::1もpc4に届く"
    world.control("router-stops-all-nodes", near and not far, why=why, seen=seen)
    one, other = _both_ends(stage, stage.pc4, "198.51.100.4")
    why = "間がスイッチなら、フレームは作り直されない"
    seen = f"MACアドレスは同じ、TTLは{one['ttl']}と{other['ttl']}"
    world.control("router-makes-new-frame", _new_frame(one, other), why=why, seen=seen)


def _no_ring(world: World) -> None:
    world.section("no-ring", "ループを作らない")
    ring = _close_ring(world)
    world.do("ip link set t3 down", ring.switches)
    copies, _frames, port = _storm(ring)
    why = "ループがなければ、1回だけ届く"
    world.control("loop-multiplies-one-frame", copies >= 100, why=why, seen=f"{copies}回")
    why = "ループがなければ、pc5はp5に載る"
    world.control("loop-confuses-table", port in {"t1", "t3"}, why=why, seen=f"{port}に載った")
    world.say("2本をつなぎ、STPなしで送ります。採取は20回までにし、ループを切ります。")
    world.do("ip link set t3 up", ring.switches)
    seen = _arrivals(ring, then=_CUT)
    why = "STPがなければ、同じものが何度も届く"
    world.control("stp-delivers-once", seen == 1, why=why, seen=f"{seen}回以上")
    _no_spare(ring)


def _no_spare(ring: _Ring) -> None:
    world = ring.world
    world.section("no-spare", "STPはあるが、予備のケーブルがない")
    _stp(ring)
    done = _ports(ring, r"(?s)\A(?!.*(listening|learning)).*t2 state forwarding")
    blocked = done.all(r"^(\w+) state blocking")
    why = "ループがなければ、どのポートも止まらない"
    seen = f"blockingは{len(blocked)}つ"
    world.control("stp-blocks-one-port", len(blocked) == 1, why=why, seen=seen)
    answered = _unplug(ring, r"t1 state disabled")
    why = "予備がなければ、抜いたら届かない"
    world.control("stp-spare-takes-over", answered, why=why, seen="応答なし")
