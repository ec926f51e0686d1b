"""Two firewalls side by side: the request takes one, the reply the other."""

from __future__ import annotations

from dataclasses import dataclass

from labs.harness import (
    Done,
    Lab,
    Namespace,
    Session,
    World,
    cut,
    feature,
    program,
)

LAB = Lab(
    title="行きと戻りで経路が違うとき",
    chapter="network/sg-and-nacl",
    shows="並んだ2台のファイアウォールの片方を行きが、もう片方を戻りが通るときに、何が起きるかを見ます。",
    topology=(
        ("client", "eth0", "192.0.2.1/24"),
        ("client", "eth1", "203.0.113.1/24"),
        ("fw1", "eth0", "192.0.2.254/24"),
        ("fw1", "eth1", "198.51.100.254/24"),
        ("fw2", "eth0", "203.0.113.254/24"),
        ("fw2", "eth1", "10.0.2.254/24"),
        ("server", "eth0", "198.51.100.1/24"),
        ("server", "eth1", "10.0.2.1/24"),
    ),
    facts={
        "each-end-chooses-its-way": (
            "行きはclientの、戻りはserverの経路表で決まり、別々の道を通ることがある"
        ),
        "stateless-rules-pass": "ステートレスなルールは、行きと戻りが別の台を通っても通す",
        "syn-ack-alone-is-invalid": "SYNを見ていないfw2は、SYN,ACKをINVALIDに分類する",
        "stateful-pair-refuses": "2台がステートフルなら、同じ許可があっても接続できない",
        "first-one-waits-for-a-reply": "SYNを見たfw1の接続表では、返事のないSYN_SENTのまま残る",
        "udp-reply-looks-new": "UDPの返事は、それだけを見たfw2では新しい通信（NEW）に見える",
        "strict-rp-filter-drops": (
            "rp_filterが1（strict）のホストは、行きと違う口から来た返事を捨てて数える"
        ),
        "loose-rp-filter-passes": (
            "rp_filterが2（loose）なら、送信元への経路がどこかにあれば受け取る"
        ),
        "same-way-back-cures": "戻りも同じ台を通せば、ステートフルのままで接続できる",
        "empty-table-cuts": (
            "接続表が空の台に切り替え、途中からの追跡を認めないと、続いていた接続が止まる"
        ),
        "loose-takes-the-permitted-side": (
            "途中からの追跡を認める台（Linuxの既定）では、許可した側が先に送れば続く"
        ),
        "copied-table-carries-on": "接続表を写してから切り替えれば、続いていた接続は止まらない",
    },
    needs=(
        program("ip", "iproute2"),
        program("nstat", "iproute2"),
        program("tcpdump"),
        program("nft", "nftables"),
        program("nc", "netcat-openbsd"),
        program("conntrack"),
        program("python3"),
        feature("network-namespace"),
        feature("nftables"),
        feature("nft-conntrack"),
    ),
    seconds=18,
    names=(r"port=(?P<port>\d{5})\b", r"port(?:-dst)? (?P<port>\d{5})\b"),
)

_STATELESS = """\
flush ruleset
table ip acl {
    chain forward {
        type filter hook forward priority filter; policy drop;
        iifname "eth0" tcp dport 8080 accept
        iifname "eth1" tcp sport 8080 tcp dport 1024-65535 accept
    }
}
"""
_STATEFUL = """\
flush ruleset
table ip sg {
    counter invalid { }
    counter new { }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ct state invalid counter name invalid drop
        iifname "eth0" meta l4proto { tcp, udp } th dport 8080 accept
        ct state new counter name new drop
    }
}
"""
_SERVER = "198.51.100.1"
_BY_FW1, _BY_FW2 = "192.0.2.254", "203.0.113.254"
_SEGMENTS = cut(r", seq \d+.*")
_ENTRY = cut(r"(?<=6 )\d+", r" mark=.*")
_CLOSE_BY_RST = "import struct; {0}.setsockopt(1, 13, struct.pack('ii', 1, 0)); {0}.close()"
_COUNT = "nstat -asz TcpExtIPReversePathFilter"


@dataclass(frozen=True)
class _Stage:
    """A client and a server, each with a leg to both firewalls, and a prompt at both ends."""

    world: World
    client: Namespace
    fw1: Namespace
    fw2: Namespace
    server: Namespace
    here: Session
    there: Session


def _set_up(world: World) -> _Stage:
    world.section("hosts", "2台のファイアウォールを並べる")
    world.say("clientとserverは、fw1とfw2の両方につながっています。")
    net = world.network
    client, server = net.namespace("client"), net.namespace("server")
    fw1, fw2 = net.router("fw1"), net.router("fw2")
    for host in (client, server, fw1, fw2):
        world.ask("sysctl -qw net.ipv4.conf.{all,default}.rp_filter=0", host)
    net.cable((client, "eth0", "192.0.2.1/24"), (fw1, "eth0", "192.0.2.254/24"))
    net.cable((client, "eth1", "203.0.113.1/24"), (fw2, "eth0", "203.0.113.254/24"))
    net.cable((fw1, "eth1", "198.51.100.254/24"), (server, "eth0", "198.51.100.1/24"))
    net.cable((fw2, "eth1", "10.0.2.254/24"), (server, "eth1", "10.0.2.1/24"))
    world.say("fw2も、両端への経路を持ちます。")
    fw2.route("192.0.2.1", "203.0.113.1")
    fw2.route(_SERVER, "10.0.2.1")
    world.say("clientはfw1に送り、serverはfw2に返します。")
    client.route(_SERVER, f"{_BY_FW1} src 192.0.2.1")
    server.route("192.0.2.1", "10.0.2.254")
    here, there = world.python(client), world.python(server)
    _listen(here, there)
    return _Stage(world, client, fw1, fw2, server, here, there)


def _listen(here: Session, there: Session) -> None:
    """Let the server listen on port 8080 of TCP and UDP."""
    here("import select, socket")
    there("import select, socket")
    there(f"listener = socket.create_server(('{_SERVER}', 8080))")
    there("echo = socket.socket(type=socket.SOCK_DGRAM)")
    there(f"echo.bind(('{_SERVER}', 8080))")


def run(world: World) -> None:
    """Split the way in two, filter it twice, then cure it."""
    stage = _set_up(world)
    _two_ways(stage)
    _stateful(stage)
    _udp(stage)
    _rp_filter(stage)
    _same_way(stage)
    _failover(stage)


def _load(stage: _Stage, name: str, rules: str) -> None:
    """Give both firewalls the same rules."""
    stage.world.file(name, rules)
    for firewall in (stage.fw1, stage.fw2):
        stage.world.do(f"nft -f {name}", firewall)


def _knock(stage: _Stage) -> Done:
    """Try a new connection from the client to the server's port 8080."""
    return stage.world.do(f"nc -nvz -w 1 {_SERVER} 8080", stage.client, code=None)


def _outcome(done: Done) -> str:
    return done.lines[-1]


def _connects(stage: _Stage) -> tuple[bool, str]:
    done = _knock(stage)
    return done.has("succeeded"), _outcome(done)


def _way_back(stage: _Stage, via: str) -> None:
    """Choose the firewall the server answers through."""
    stage.world.do(f"ip route replace 192.0.2.1 via {via}", stage.server)


def _ways(stage: _Stage) -> tuple[bool, str]:
    """Connect; return whether the SYN took fw1 and the SYN,ACK fw2."""
    world = stage.world
    syn = "'tcp port 8080 and tcp[tcpflags] & tcp-syn != 0'"
    captures = [fw.capture("eth0", syn, options="-nn -t") for fw in (stage.fw1, stage.fw2)]
    _knock(stage)
    world.until(
        lambda: sum(c.text.count("Flags") for c in captures) >= 2, "SYNとSYN,ACKが採取される"
    )
    first, _ = (world.stop(c, show=_SEGMENTS).text for c in captures)
    went = "fw1" if "[S]," in first else "fw2"
    came = "fw1" if "[S.]" in first else "fw2"
    return (went, came) == ("fw1", "fw2"), f"SYNは{went}、SYN,ACKは{came}"


def _two_ways(stage: _Stage) -> None:
    world = stage.world
    world.section("two-ways", "行きはfw1、戻りはfw2を通る")
    world.say("まず、2台にステートレスなルールを入れます。行きと戻りの両方を許可します。")
    _load(stage, "stateless.nft", _STATELESS)
    world.say("client側で、SYNの付いたセグメントを採取します。先に出る行がfw1、後がfw2です。")
    holds, seen = _ways(stage)
    world.fact("each-end-chooses-its-way", holds, seen=seen)
    world.say("接続はできます。どちらの台も、1つずつのパケットだけで判断するからです。")
    holds, seen = _connects(stage)
    world.fact("stateless-rules-pass", holds, seen=seen)


def _counted(stage: _Stage, counter: str, firewall: Namespace) -> int:
    """Read how many packets the named counter of a firewall has seen."""
    done = stage.world.do(f"nft list counter ip sg {counter}", firewall, show=cut(r" bytes \d+"))
    return int(done.all(r"packets (\d+)")[0])


def _stateful(stage: _Stage) -> None:
    world = stage.world
    world.section("stateful", "2台をステートフルに替える")
    world.say("許可は同じ8080番です。INVALIDとNEWは、カウンターで数えます。")
    _load(stage, "stateful.nft", _STATEFUL)
    holds, seen = _connects(stage)
    world.fact("stateful-pair-refuses", not holds, seen=seen)
    count = _counted(stage, "invalid", stage.fw2)
    world.fact("syn-ack-alone-is-invalid", count > 0, seen=f"INVALIDが{count}個")
    world.say("2台の接続表を見ます。fw2には何もありません。")
    holds, seen = _half_open(stage)
    world.fact("first-one-waits-for-a-reply", holds, seen=seen)


def _half_open(stage: _Stage) -> tuple[bool, str]:
    """Return whether fw1 still waits for a reply, and its line."""
    command = "conntrack -L -p tcp 2>/dev/null"
    text = stage.world.do(command, stage.fw1, show=_ENTRY).text.strip()
    stage.world.do(command, stage.fw2)
    return "SYN_SENT" in text and "[UNREPLIED]" in text, _ENTRY(text) or "0行"


def _ask(stage: _Stage) -> None:
    """Send a question over UDP, and answer it from where it arrived."""
    stage.here("question = socket.socket(type=socket.SOCK_DGRAM)")
    stage.here(f"question.sendto(b'ping', ('{_SERVER}', 8080))")
    stage.there("data, sender = echo.recvfrom(100)")
    stage.there("echo.sendto(b'pong', sender)")


def _new_at(stage: _Stage, firewall: Namespace) -> tuple[bool, str]:
    """Return whether a firewall takes the reply for something new, and what came of it."""
    _ask(stage)
    arrived = stage.here("select.select([question], [], [], 1)[0] != []") == "True"
    count = _counted(stage, "new", firewall)
    return count == 1, f"NEWが{count}個、返事は{'届く' if arrived else '届かない'}"


def _udp(stage: _Stage) -> None:
    world = stage.world
    world.section("udp", "UDPで尋ねる")
    world.say("TCPと違い、UDPのデータグラムには「返事」の印がありません。")
    holds, seen = _new_at(stage, stage.fw2)
    world.fact("udp-reply-looks-new", holds, seen=seen)


def _filtered(stage: _Stage, mode: int) -> tuple[bool, int, str]:
    """Connect under an rp_filter; return success, drops counted by the client, the outcome."""
    stage.client.sysctl(f"net.ipv4.conf.eth1.rp_filter={mode}")
    before = _drops(stage)
    holds, seen = _connects(stage)
    return holds, _drops(stage) - before, seen


def _drops(stage: _Stage) -> int:
    return int(stage.world.do(_COUNT, stage.client).all(r"Filter +(\d+)")[0])


def _rp_filter(stage: _Stage) -> None:
    world = stage.world
    world.section("rp-filter", "rp_filterで捨てる")
    world.say(
        "ルールをステートレスに戻します。次に、clientのeth1でrp_filterを1にします。"
        "serverへの経路はeth0なので、eth1から来る返事は合いません。"
    )
    _load(stage, "stateless.nft", _STATELESS)
    holds, drops, seen = _filtered(stage, 1)
    more = "増える" if drops else "増えない"
    world.fact("strict-rp-filter-drops", not holds and drops > 0, seen=f"{seen}。数は{more}")
    world.say("2に替えます。")
    holds, drops, seen = _filtered(stage, 2)
    world.fact("loose-rp-filter-passes", holds, seen=seen)


def _same_way(stage: _Stage) -> None:
    world = stage.world
    world.section("same-way", "戻りも同じ台を通す")
    world.say("ステートフルに戻し、serverの戻りもfw1に向けます。")
    _load(stage, "stateful.nft", _STATEFUL)
    _way_back(stage, "198.51.100.254")
    holds, seen = _connects(stage)
    world.fact("same-way-back-cures", holds, seen=seen)


def _open(stage: _Stage) -> None:
    """Open a connection that stays; those of `nc` before it leave the queue."""
    stage.there.ask("while select.select([listener], [], [], 0)[0]: listener.accept()[0].close()")
    stage.here(f"connection = socket.create_connection(('{_SERVER}', 8080))")
    stage.there("peer, address = listener.accept()")


def _give_up(stage: _Stage) -> None:
    """Close both ends without a word left to be sent again."""
    stage.here.ask(_CLOSE_BY_RST.format("connection"))
    stage.there.ask(_CLOSE_BY_RST.format("peer"))


def _switch(stage: _Stage, firewall: int) -> None:
    """Send both directions through one firewall, as after a failover."""
    go, back = {1: (_BY_FW1, "198.51.100.254"), 2: (_BY_FW2, "10.0.2.254")}[firewall]
    stage.world.do(f"ip route replace {_SERVER} via {go} src 192.0.2.1", stage.client)
    _way_back(stage, back)


def _speak(stage: _Stage, *, first: str) -> tuple[bool, str]:
    """Send on the open connection from one end; return whether it arrives within 1.5 seconds."""
    ends = [(stage.here, "connection"), (stage.there, "peer")]
    (one, mine), (other, its) = ends if first == "client" else reversed(ends)
    one(f"{mine}.sendall(b'still here')")
    arrives = other(f"select.select([{its}], [], [], 1.5)[0] != []") == "True"
    return arrives, "データが届く" if arrives else "データが届かない"


def _copy(stage: _Stage) -> None:
    """Carry the table of fw1 to fw2."""
    stage.world.do("conntrack -L -p tcp -o save 2>/dev/null | tee table.txt", stage.fw1)
    stage.world.do("conntrack -R table.txt", stage.fw2)


def _fail_over(
    stage: _Stage, *, copied: bool = False, loose: int = 0, first: str = "client"
) -> tuple[bool, str]:
    """Open by fw1, go on by fw2; return whether the connection still carries data."""
    _switch(stage, 1)
    for firewall in (stage.fw1, stage.fw2):
        stage.world.do("conntrack -F 2>/dev/null", firewall)
    stage.fw2.sysctl(f"net.netfilter.nf_conntrack_tcp_loose={loose}")
    _open(stage)
    if copied:
        _copy(stage)
    _switch(stage, 2)
    arrives, seen = _speak(stage, first=first)
    _give_up(stage)
    return arrives, seen


def _failover(stage: _Stage) -> None:
    world = stage.world
    world.section("failover", "続いている接続を、空の接続表に切り替える")
    world.say(
        "fw1を通る接続を開き、両方向をfw2に切り替えます。fw2の接続表は空で、途中からの追跡も認めません。"
    )
    arrives, seen = _fail_over(stage)
    world.fact("empty-table-cuts", not arrives, seen=seen)
    world.say("同じことを、途中からの追跡を認めて行います。clientが先に送ります。")
    arrives, seen = _fail_over(stage, loose=1)
    world.fact("loose-takes-the-permitted-side", arrives, seen=seen)
    world.section("copied", "接続表を写してから切り替える")
    world.say("途中からの追跡は認めず、fw1の接続表をfw2に写してから切り替えます。")
    arrives, seen = _fail_over(stage, copied=True)
    world.fact("copied-table-carries-on", arrives, seen=seen)


def control(world: World) -> None:
    """Let both directions take one way, forget a rule, and switch over otherwise."""
    stage = _set_up(world)
    _without_return_rule(stage)
    _one_way_for_both(stage)
    _still_split(stage)
    _other_failovers(stage)


def _without_return_rule(stage: _Stage) -> None:
    world = stage.world
    world.section("no-return", "戻りの通る台で、戻りを許可しない")
    _load(stage, "stateless.nft", _STATELESS)
    world.do("nft flush chain ip acl forward", stage.fw2)
    holds, seen = _connects(stage)
    why = "ステートレスでも、戻りの通る台に許可がなければ通らない"
    world.control("stateless-rules-pass", holds, why=why, seen=seen)


def _one_way_for_both(stage: _Stage) -> None:
    world = stage.world
    world.section("one-way", "戻りもfw1に向ける")
    _way_back(stage, "198.51.100.254")
    holds, seen = _ways(stage)
    why = "serverの経路表を変えると、戻りもfw1を通る"
    world.control("each-end-chooses-its-way", holds, why=why, seen=seen)
    _load(stage, "stateless.nft", _STATELESS)
    holds, drops, seen = _filtered(stage, 1)
    why = "返事が行きと同じ口から来れば、strictでも捨てられない"
    dropped = not holds and drops > 0
    world.control("strict-rp-filter-drops", dropped, why=why, seen=seen)
    _load(stage, "stateful.nft", _STATEFUL)
    _stateful_one_way(stage)


def _stateful_one_way(stage: _Stage) -> None:
    world = stage.world
    holds, seen = _connects(stage)
    why = "行きと戻りが同じ台を通れば、ステートフルでも接続できる"
    world.control("stateful-pair-refuses", not holds, why=why, seen=seen)
    holds, seen = _half_open(stage)
    why = "返事もfw1を通れば、SYN_SENTのまま残らない"
    world.control("first-one-waits-for-a-reply", holds, why=why, seen=seen)
    count = _counted(stage, "invalid", stage.fw1)
    why = "SYNを見たfw1では、SYN,ACKはINVALIDにならない"
    world.control("syn-ack-alone-is-invalid", count > 0, why=why, seen=f"INVALIDが{count}個")
    holds, seen = _new_at(stage, stage.fw1)
    why = "問い合わせを見たfw1では、UDPの返事はNEWにならない"
    world.control("udp-reply-looks-new", holds, why=why, seen=seen)


def _still_split(stage: _Stage) -> None:
    world = stage.world
    world.section("split", "戻りをfw2に向けたままにする")
    _way_back(stage, "10.0.2.254")
    stage.client.sysctl("net.ipv4.conf.eth1.rp_filter=0")
    holds, seen = _connects(stage)
    why = "戻りが別の台を通ると、接続できない"
    world.control("same-way-back-cures", holds, why=why, seen=seen)
    _load(stage, "stateless.nft", _STATELESS)
    holds, _, seen = _filtered(stage, 1)
    why = "1（strict）なら、同じ返事を受け取らない"
    world.control("loose-rp-filter-passes", holds, why=why, seen=seen)
    stage.client.sysctl("net.ipv4.conf.eth1.rp_filter=0")


def _other_failovers(stage: _Stage) -> None:
    world = stage.world
    world.section("failover", "切り替え方を変える")
    _load(stage, "stateful.nft", _STATEFUL)
    arrives, seen = _fail_over(stage, loose=1)
    why = "途中からの追跡を認めれば、接続表が空でも続く"
    world.control("empty-table-cuts", not arrives, why=why, seen=seen)
    arrives, seen = _fail_over(stage, loose=1, first="server")
    why = "許可していない側が先に送ると、続かない"
    world.control("loose-takes-the-permitted-side", arrives, why=why, seen=seen)
    arrives, seen = _fail_over(stage)
    why = "接続表を写さなければ止まる"
    world.control("copied-table-carries-on", arrives, why=why, seen=seen)
