"""What a NAT router rewrites, what it remembers, and where it runs out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labs.harness import Lab, Namespace, Session, World, cut, feature, program, trial

LAB = Lab(
    title="NATの往復と変換表",
    chapter="network/nat",
    shows="2台のPCが1つの外側アドレスを分け合うルーターで、書き換わる所と変換表を見ます。",
    topology=(
        ("pc1", "eth0", "10.0.1.1/24"),
        ("pc2", "eth0", "10.0.2.1/24"),
        ("router", "lan1", "10.0.1.254/24"),
        ("router", "lan2", "10.0.2.254/24"),
        ("router", "wan", "203.0.113.1/24"),
        ("server", "eth0", "203.0.113.2/24"),
    ),
    facts={
        "outside-sees-the-router": "外のサーバーに見える送信元は、ルーターの外側アドレスである",
        "source-out-destination-back": "往路では送信元だけが、復路では宛先だけが書き換わる",
        "free-port-is-kept": "Linuxのmasqueradeは、ぶつからない送信元ポートを変えない",
        "clashing-port-is-rewritten": "送信元ポートがぶつかると、後から来た方のポートを書き換える",
        "entry-holds-both-directions": "変換表の1項目は、変換前の組と、変換後に戻る組を対で持つ",
        "ping-is-told-by-its-id": "pingは、ポートの代わりに識別子を書き換えて見分ける",
        "first-packet-decides": "規則を変えても、すでにあるコネクションの変換は変わらない",
        "arrival-needs-a-rule": "ルーターあての着信は、変換表にも規則にもなければ内側に届かない",
        "dnat-keeps-the-source": "DNATだけなら、内側のサーバーに本当の送信元が見える",
        "masquerade-is-no-filter": "masqueradeだけでは、内側アドレスあての着信を止めない",
        "ports-run-out": "外側のポートが尽きると、同じ宛先への新しい接続は失敗する",
        "other-destination-shares-a-port": "LinuxのNATは、宛先が違えば同じ外側ポートを使い回す",
    },
    needs=(
        program("ip", "iproute2"),
        program("nft", "nftables"),
        program("conntrack"),
        program("tcpdump"),
        program("ping", "iputils-ping"),
        program("python3"),
        feature("network-namespace"),
        feature("nft-nat"),
        trial(
            "conntrackでの変換表の表示",
            "conntrack -L",
            "sudo modprobe nf_conntrack_netlink",
            "conntrack",
        ),
    ),
    seconds=7,
    stable=True,
    names=(
        r"^\('203\.0\.113\.1', (?P<translated>(?![23]000[01]\b)\d+)\)$",
        r": \('203\.0\.113\.1', (?P<translated>(?![23]000[01]\b)\d+)\)$",
        r"\bdport=(?P<translated>(?![23]000[01]\b)\d{4,5}) \[",
        r"echo request, id (?P<id>(?!777\b)\d+)",
    ),
)

_MASQUERADE = """\
table ip nat {
  chain post {
    type nat hook postrouting priority srcnat
    oifname "wan" masquerade
  }
}
"""
_FORWARDING = """\
table ip port_forwarding {
  chain pre {
    type nat hook prerouting priority dstnat
    iifname "wan" tcp dport 8080 dnat to 10.0.1.1:80
  }
}
"""
_FILTER = """\
table ip filter {
  chain forward {
    type filter hook forward priority filter
    ct state established,related accept
    iifname "wan" drop
  }
}
"""
_SYNS = "'tcp[tcpflags] & tcp-syn != 0'"
_PAIR = re.compile(r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)")
_ENTRY = cut(r"(?<= 6 )\d+(?= )", r" mark=.*")


@dataclass(frozen=True)
class _Stage:
    """Two PCs behind a router, a server outside, and a Python prompt on each but the router."""

    world: World
    pc1: Namespace
    pc2: Namespace
    router: Namespace
    server: Namespace
    one: Session
    two: Session
    out: Session


def _set_up(world: World) -> _Stage:
    world.section("hosts", "2台のPC、ルーター、外のサーバーをつなぐ")
    world.say("サーバーには、内側（10.0.0.0/8）への経路がありません。")
    network = world.network
    pc1, pc2, server = (network.namespace(name) for name in ("pc1", "pc2", "server"))
    router = network.router("router")
    network.cable((pc1, "eth0", "10.0.1.1/24"), (router, "lan1", "10.0.1.254/24"))
    network.cable((pc2, "eth0", "10.0.2.1/24"), (router, "lan2", "10.0.2.254/24"))
    network.cable((server, "eth0", "203.0.113.2/24"), (router, "wan", "203.0.113.1/24"))
    pc1.route("default", "10.0.1.254")
    pc2.route("default", "10.0.2.254")
    prompts = [world.python(host) for host in (pc1, pc2, server)]
    for prompt in prompts:
        prompt("from socket import create_connection, create_server")
    one, two, out = prompts
    return _Stage(world, pc1, pc2, router, server, one, two, out)


def run(world: World) -> None:
    """Share one address, look into the table, come in from outside, use up the ports."""
    stage = _set_up(world)
    _share_the_address(stage)
    _clash(stage)
    _look_into_the_table(stage)
    _ping(stage)
    _come_in(stage)
    _run_out(stage)


def _load(stage: _Stage, name: str, text: str) -> None:
    stage.world.file(name, text)
    stage.world.do(f"nft -f {name}", stage.router)


def _connect(prompt: Session, name: str, port: int, source: str) -> None:
    target = f"('203.0.113.2', {port})"
    prompt(f"{name} = create_connection({target}, source_address={source})")


def _arrival(stage: _Stage, name: str, listener: str = "listener") -> str:
    """Accept a connection outside; return the address it seems to come from."""
    stage.out(f"{name}, address = {listener}.accept()")
    return stage.out("address")


def _port(address: str) -> str:
    return address.strip("()").split(", ")[1]


# The way out and back


def _trip(stage: _Stage) -> tuple[str, list[str], list[str]]:
    """Connect from PC 1; return who the server sees, and the packets inside and outside."""
    world = stage.world
    inside = stage.router.capture("lan1", _SYNS, "-nn -q -t")
    outside = stage.router.capture("wan", _SYNS, "-nn -q -t")
    stage.out("listener = create_server(('203.0.113.2', 8080))")
    _connect(stage.one, "first", 8080, "('10.0.1.1', 20000)")
    seen = _arrival(stage, "peer")
    both_sides = (inside, outside)
    world.until(lambda: all(len(x.lines) >= 2 for x in both_sides), "往復が両側で採取される")
    world.say("ルーターの内側（lan1）と外側（wan）で採取した、SYNとSYN,ACKです。")
    return seen, world.stop(inside).lines, world.stop(outside).lines


def _ends(line: str) -> tuple[str, str]:
    """Return the source and the destination of a packet."""
    words = line.split()
    return words[1], words[3].rstrip(":")


def _is_rewritten(inside: list[str], outside: list[str]) -> bool:
    """Tell whether only the source changes on the way out, only the destination back."""
    (pc, web), (router, same_web) = _ends(inside[0]), _ends(outside[0])
    out = pc != router and web == same_web
    return out and _ends(inside[1]) == (web, pc) and _ends(outside[1]) == (web, router)


def _share_the_address(stage: _Stage) -> None:
    world = stage.world
    world.section("masquerade", "masqueradeで外に出る")
    world.say("wanから出るパケットの送信元を、wanのアドレスに書き換えます。")
    _load(stage, "nat.nft", _MASQUERADE)
    world.say("書き換えが見えるよう、PCの送信元ポートを20000番に決めてつなぎます。")
    seen, inside, outside = _trip(stage)
    world.fact("outside-sees-the-router", "'203.0.113.1'" in seen, seen=seen)
    packets = f"往路 {' > '.join(_ends(outside[0]))}、復路 {' > '.join(_ends(inside[1]))}"
    world.fact("source-out-destination-back", _is_rewritten(inside, outside), seen=packets)
    world.fact("free-port-is-kept", _port(seen) == "20000", seen=f"20000番のまま: {seen}")


def _meet(stage: _Stage) -> str:
    """Connect from PC 2 with the port PC 1 uses; return who the server sees."""
    _connect(stage.two, "second", 8080, "('10.0.2.1', 20000)")
    return _arrival(stage, "peer2")


def _clash(stage: _Stage) -> None:
    world = stage.world
    world.section("clash", "2台のポートをぶつける")
    world.say("pc2も20000番からつなぎます。新しいポートは実行ごとに違います。")
    seen = _meet(stage)
    world.fact("clashing-port-is-rewritten", _port(seen) != "20000", seen=f"20000番から: {seen}")


def _entries(stage: _Stage) -> list[list[tuple[str, ...]]]:
    """Show the table's entries of both PCs; return their pairs: out and back."""
    found = []
    for pc in ("10.0.1.1", "10.0.2.1"):
        command = f"conntrack -L -p tcp -s {pc} 2>/dev/null"
        text = stage.world.do(command, stage.router, show=_ENTRY).text
        found.append([pair.groups() for pair in _PAIR.finditer(text)])
    return found


def _back_to_the_router(entries: list[list[tuple[str, ...]]]) -> bool:
    """Tell whether each entry pairs a PC's address with the router's."""
    found = [(pairs[0][0], pairs[1][1]) for pairs in entries if pairs]
    return found == [("10.0.1.1", "203.0.113.1"), ("10.0.2.1", "203.0.113.1")]


def _look_into_the_table(stage: _Stage) -> None:
    world = stage.world
    world.section("table", "変換表を見る")
    world.say("1行の前半が内側から出るときの組、後半が外側から戻るときの組です。")
    entries = _entries(stage)
    seen = "、".join(f"{out[0]}:{out[2]}⇔{back[1]}:{back[3]}" for out, back in entries)
    world.fact("entry-holds-both-directions", _back_to_the_router(entries), seen=seen)


def _identifiers(stage: _Stage) -> list[str]:
    """Ping from both PCs with the same identifier; return those that are seen outside."""
    world = stage.world
    capture = stage.router.capture("wan", "'icmp[icmptype] == icmp-echo'", "-nn -t")
    for pc in (stage.pc1, stage.pc2):
        world.do("ping -c 1 -e 777 203.0.113.2 | grep from", pc)
    world.until(lambda: len(capture.lines) >= 2, "2つの要求が採取される")
    return world.stop(capture, show=cut(", seq .*")).all(r"request, id (\d+)")


def _told_apart(identifiers: list[str]) -> bool:
    first, second = identifiers
    return first == "777" and second != "777"


def _ping(stage: _Stage) -> None:
    world = stage.world
    world.section("ping", "ポートのないpingを通す")
    world.say("2台から同じ識別子777で送り、外側で採取します。新しい識別子は実行ごとに違います。")
    found = _identifiers(stage)
    world.fact("ping-is-told-by-its-id", _told_apart(found), seen="と".join(found))


# The way in


def _visit(stage: _Stage, refused: str = "") -> bool:
    """Come from outside to the router's port 8080; return whether that succeeded."""
    stage.out("visit = create_connection(('203.0.113.1', 8080))", raises=refused)
    return not refused


def _visitor(stage: _Stage) -> str:
    """Return who the server inside sees."""
    stage.one("guest, visitor = web.accept()")
    return stage.one("visitor[0]").strip("'")


def _come_in(stage: _Stage) -> None:
    world = stage.world
    world.section("arrivals", "外から内側へ入る")
    world.say("pc1に80番のサーバーを置き、外から、ルーターのアドレスの8080番へつなぎます。")
    stage.one("web = create_server(('10.0.1.1', 80))")
    came_in = _visit(stage, refused="ConnectionRefusedError")
    world.fact("arrival-needs-a-rule", not came_in, seen="ルーター自身が拒んだ")
    world.say("宛先を書き換える規則（DNAT、ポートフォワーディング）を足します。")
    _load(stage, "forward.nft", _FORWARDING)
    _visit(stage)
    visitor = _visitor(stage)
    world.fact("dnat-keeps-the-source", visitor == "203.0.113.2", seen=f"pc1に見えた{visitor}")
    world.say("外のホストが内側への経路を持てば、ルーターはそのまま転送します。")
    stage.server.route("10.0.0.0/16", "203.0.113.1")
    stage.out("direct = create_connection(('10.0.1.1', 80))")
    visitor = _visitor(stage)
    seen = f"DNATなしの10.0.1.1あてに{visitor}が届いた"
    world.fact("masquerade-is-no-filter", visitor == "203.0.113.2", seen=seen)


# The ports


def _ports(stage: _Stage, ports: str) -> None:
    """Limit the ports of the outside address."""
    rule = f"oifname wan meta l4proto tcp masquerade to :{ports}"
    stage.world.do("nft flush chain ip nat post", stage.router)
    stage.world.do(f"nft add rule ip nat post {rule}", stage.router)


def _still_there(stage: _Stage, error: str = "") -> str:
    """Send through the first connection; return what arrives."""
    stage.one("first.sendall(b'still here')")
    return stage.out("peer.recv(100)", raises=error)


def _run_out(stage: _Stage) -> None:
    world, out = stage.world, stage.out
    world.section("ports", "外側のポートを使い切る")
    world.say("外側のポートを30000番の1つだけにします。初めのコネクションは、20000番のままです。")
    _ports(stage, "30000")
    received = _still_there(stage)
    seen = f"20000番のコネクションに{received}が届いた"
    world.fact("first-packet-decides", received == "b'still here'", seen=seen)
    world.say("同じ宛先へ、新しく2本つなぎます。")
    stage.one("third = create_connection(('203.0.113.2', 8080))")
    first = _port(_arrival(stage, "peer3"))
    stage.two("create_connection(('203.0.113.2', 8080), timeout=1.5)", raises="TimeoutError")
    world.fact("ports-run-out", first == "30000", seen="1本目は30000番、2本目は時間切れ")
    world.say("同じサーバーの8081番は別の宛先なので、同じ30000番でつながります。")
    out("other = create_server(('203.0.113.2', 8081))")
    stage.two("fourth = create_connection(('203.0.113.2', 8081))")
    second = _port(_arrival(stage, "peer4", "other"))
    seen = f"8080番あても8081番あても{second}番"
    world.fact("other-destination-shares-a-port", second == first, seen=seen)


def control(world: World) -> None:
    """Take the causes away: no NAT, other rules, a filter, more ports."""
    stage = _set_up(world)
    _without_nat(stage)
    _with_more_ports(stage)
    _without_the_entry(stage)
    _with_other_rules(stage)


def _without_nat(stage: _Stage) -> None:
    world = stage.world
    world.section("no-nat", "NATなしでつなぐ")
    world.say("サーバーに内側への経路を足せば、NATがなくても通信できます。")
    stage.server.route("10.0.0.0/16", "203.0.113.1")
    seen, inside, outside = _trip(stage)
    visible = "'203.0.113.1'" in seen
    why = "NATがなければ、サーバーにはPCのアドレスが見える"
    world.control("outside-sees-the-router", visible, why=why, seen=seen)
    why, same = "NATがなければ、どちらの向きでも何も書き換わらない", _is_rewritten(inside, outside)
    world.control("source-out-destination-back", same, why=why, seen="内側と外側で同じ")
    seen = _meet(stage)
    why = "アドレスが別々なら、ポートが同じでもぶつからない"
    world.control("clashing-port-is-rewritten", _port(seen) != "20000", why=why, seen=seen)
    holds = _back_to_the_router(_entries(stage))
    why = "変換しないコネクションには、外側アドレスを持つ項目ができない"
    world.control("entry-holds-both-directions", holds, why=why, seen="項目なし")
    found = _identifiers(stage)
    why = "NATがなければ、同じ識別子のままでも混ざらない"
    world.control("ping-is-told-by-its-id", _told_apart(found), why=why, seen="と".join(found))


def _with_more_ports(stage: _Stage) -> None:
    world = stage.world
    world.section("more-ports", "ポートの範囲を変える")
    world.do("nft add table ip nat", stage.router)
    hook = "{ type nat hook postrouting priority srcnat; }"
    world.do(f"nft add chain ip nat post '{hook}'", stage.router)
    _ports(stage, "30000")
    _connect(stage.one, "first", 8080, "('10.0.1.1', 20001)")
    first = _port(_arrival(stage, "peer"))
    why = "使うポートを30000番に決めれば、ぶつからないポートも書き換わる"
    seen = f"20001番が{first}番"
    world.control("free-port-is-kept", first == "20001", why=why, seen=seen)
    world.say("範囲を2つに広げて、同じ宛先への2本目をつなぎます。")
    _ports(stage, "30000-30001")
    stage.two("second = create_connection(('203.0.113.2', 8080))")
    second = _port(_arrival(stage, "peer2"))
    why = "空いたポートがもう1つあれば、2本目もつながる"
    world.control("ports-run-out", not second, why=why, seen=f"{first}番と{second}番")
    why = "宛先が同じなら、同じ外側ポートは使い回せない"
    seen = f"{first}番と{second}番"
    world.control("other-destination-shares-a-port", first == second, why=why, seen=seen)


def _without_the_entry(stage: _Stage) -> None:
    world = stage.world
    world.section("no-entry", "規則を変え、変換表も空にする")
    _ports(stage, "30002")
    world.do("conntrack -F", stage.router, show=cut(r"v[\d.]+"))
    stage.out("peer.settimeout(1.5)")
    received = _still_there(stage, "TimeoutError")
    why = "変換表の項目がなければ、既存のコネクションも新しい規則で変換され、届かなくなる"
    world.control("first-packet-decides", received == "b'still here'", why=why, seen="時間切れ")


def _with_other_rules(stage: _Stage) -> None:
    world = stage.world
    world.section("other-rules", "着信の規則を変える")
    stage.one("web = create_server(('10.0.1.1', 80))")
    _load(stage, "forward.nft", _FORWARDING)
    world.do("nft add rule ip nat post oifname lan1 masquerade", stage.router)
    came_in = _visit(stage)
    visitor = _visitor(stage)
    why = "DNATの規則があれば、着信は内側に転送される"
    world.control("arrival-needs-a-rule", not came_in, why=why, seen="pc1に届いた")
    why = "内側へ出るときにも送信元を書き換えれば、ルーターが見える"
    kept = visitor == "203.0.113.2"
    world.control("dnat-keeps-the-source", kept, why=why, seen=f"pc1に見えた{visitor}")
    world.say("外からの着信を止めるのは、フィルターの仕事です。")
    _load(stage, "filter.nft", _FILTER)
    stage.out("create_connection(('10.0.1.1', 80), timeout=1.5)", raises="TimeoutError")
    why = "フィルターで止めれば、内側アドレスあての着信は届かない"
    world.control("masquerade-is-no-filter", False, why=why, seen="時間切れ")
