"""What a filter that remembers connections does differently from one that does not."""

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
    trial,
)

LAB = Lab(
    title="ステートレスとステートフルのフィルター",
    chapter="protocols/firewall",
    shows="clientとserverの間のfwで、接続を覚えないフィルターと覚えるフィルターを比べます。",
    topology=(
        ("client", "eth0", "192.0.2.1/24"),
        ("fw", "eth0", "192.0.2.254/24"),
        ("fw", "eth1", "198.51.100.254/24"),
        ("server", "eth0", "198.51.100.1/24"),
        ("client", "eth1", "203.0.113.1/24"),
        ("server", "eth1", "203.0.113.2/24"),
    ),
    facts={
        "stateless-needs-a-return-rule": (
            "ステートレスなフィルターで行きだけを許可しても、戻りが捨てられて接続できない"
        ),
        "return-rule-opens-the-way-back": (
            "ステートレスなフィルターは、エフェメラルポート宛ての戻りを許可すると接続できる"
        ),
        "return-rule-lets-strangers-in": (
            "エフェメラルポート宛ての許可は、頼んでいない接続のSYNも通す"
        ),
        "stateless-change-cuts-at-once": (
            "ステートレスなフィルターのルールを消すと、続いている接続もすぐに止まる"
        ),
        "stateful-needs-no-return-rule": "ステートフルなフィルターは、行きの許可だけで戻りも通す",
        "table-holds-both-directions": "接続表の1行は、行きと戻りの両方のアドレスとポートを持つ",
        "established-outlives-its-rule": (
            "ステートフルなフィルターの許可を消しても、接続表にある接続は続く"
        ),
        "new-connections-need-the-rule": "許可を消した後の新しい接続は、捨てられる",
        "icmp-errors-come-back-as-related": (
            "許可した通信へのICMPエラーは、RELATEDとして戻りを許可される"
        ),
        "first-match-decides": "ルールは上から順に比べられ、先に一致したacceptかdropで決まる",
        "reject-fails-at-once": "rejectされた接続は、時間切れを待たずにConnection refusedになる",
        "one-way-traffic-is-dropped": (
            "戻りが別の経路を通ると、ステートフルなフィルターは行きの続きを捨てる"
        ),
    },
    needs=(
        program("ip", "iproute2"),
        program("ss", "iproute2"),
        program("tcpdump"),
        program("nft", "nftables"),
        program("nc", "netcat-openbsd"),
        program("conntrack"),
        program("python3"),
        feature("network-namespace"),
        feature("nftables"),
        feature("nft-conntrack"),
        trial(
            "nftablesのreject",
            "nft 'add table ip t; add chain ip t c; add rule ip t c reject; delete table ip t'",
            "sudo modprobe nft_reject_ipv4",
        ),
    ),
    seconds=18,
    stable=True,
    names=(r"port=(?P<port>\d{5})\b",),
)

_STATELESS = """\
flush ruleset
table ip acl {
    chain forward {
        type filter hook forward priority filter; policy drop;
        iifname "eth0" tcp dport 8080 accept
    }
}
"""
_STATEFUL = """\
flush ruleset
table ip sg {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "eth0" ct state new jump allowed
    }
    chain allowed {
        tcp dport 8080 accept
    }
}
"""
_RETURNED = r"eth1 +In .*\[S\.\]"
_RETURN = "nft add rule ip acl forward iifname eth1 tcp dport 1024-65535 accept"
_CLOSE_BY_RST = "import struct; {0}.setsockopt(1, 13, struct.pack('ii', 1, 0)); {0}.close()"
_SEGMENTS = cut(r"win \d+, options \[.*\]")
_ENTRY = cut(r"(?<=6 )\d+", r" mark=.*")


@dataclass(frozen=True)
class _Stage:
    """A client and a server, a filter between them, and a Python prompt at both ends."""

    world: World
    client: Namespace
    fw: Namespace
    server: Namespace
    here: Session
    there: Session


def _set_up(world: World) -> _Stage:
    world.section("hosts", "フィルターをはさんでつなぐ")
    world.say("fwは、clientとserverの間のルーターです。serverは8080番で待ち受けます。")
    net = world.network
    client, server, fw = net.namespace("client"), net.namespace("server"), net.router("fw")
    net.cable((client, "eth0", "192.0.2.1/24"), (fw, "eth0", "192.0.2.254/24"))
    net.cable((fw, "eth1", "198.51.100.254/24"), (server, "eth0", "198.51.100.1/24"))
    client.route("default", "192.0.2.254")
    server.route("default", "198.51.100.254")
    here, there = world.python(client), world.python(server)
    here("import select, socket")
    there("import select, socket")
    there("listener = socket.create_server(('198.51.100.1', 8080))")
    return _Stage(world, client, fw, server, here, there)


def run(world: World) -> None:
    """Meet a stateless filter, then a stateful one, then what fools it."""
    stage = _set_up(world)
    _stateless(stage)
    _return_rule(stage)
    _stateless_change(stage)
    _stateful(stage)
    _stateful_change(stage)
    _related(stage)
    _order(stage)
    _one_way(stage)


def _load(stage: _Stage, name: str, rules: str) -> None:
    stage.world.file(name, rules)
    stage.world.do(f"nft -f {name}", stage.fw)


def _knock(stage: _Stage) -> Done:
    """Try a new connection from the client to the server's port 8080."""
    return stage.world.do("nc -nvz -w 1 198.51.100.1 8080", stage.client, code=None)


def _knock_back(stage: _Stage) -> str:
    """Try a connection that nobody asked for; return the SYN if it reaches the client."""
    syn = "'tcp dst port 3306 and tcp[tcpflags] == tcp-syn'"
    capture = stage.client.capture("eth0", syn, options="-nn -t -c 1")
    stage.world.do("nc -nvz -w 1 192.0.2.1 3306", stage.server, code=None)
    return stage.world.stop(capture, show=_SEGMENTS).text.strip()


def _open(stage: _Stage) -> None:
    """Open a connection that stays; those of `nc` before it leave the queue."""
    stage.there.ask("while select.select([listener], [], [], 0)[0]: listener.accept()[0].close()")
    stage.here("connection = socket.create_connection(('198.51.100.1', 8080))")
    stage.there("peer, address = listener.accept()")


def _flows(stage: _Stage) -> bool:
    """Send on the open connection; return whether it arrives within 1.5 seconds."""
    stage.here("connection.sendall(b'still here')")
    return stage.there("select.select([peer], [], [], 1.5)[0] != []") == "True"


def _give_up(stage: _Stage) -> None:
    """Close both ends without a word left to be sent again."""
    stage.here.ask(_CLOSE_BY_RST.format("connection"))
    stage.there.ask(_CLOSE_BY_RST.format("peer"))


def _outcome(done: Done) -> str:
    return done.lines[-1]


def _stateless(stage: _Stage) -> None:
    world = stage.world
    world.section("stateless", "行きだけを許可する")
    world.say("パケットを1つずつ、ヘッダーだけで判断します。どのルールにも合わなければ捨てます。")
    _load(stage, "stateless.nft", _STATELESS)
    capture = stage.fw.capture("any", "'tcp port 8080'", options="-nn -t -c 3")
    done = _knock(stage)
    capture.wait()
    holds = done.has("timed out") and world.stop(capture, show=_SEGMENTS).has(_RETURNED)
    world.fact("stateless-needs-a-return-rule", holds, seen=_outcome(done))


def _return_rule(stage: _Stage) -> None:
    world = stage.world
    world.section("return-rule", "戻りを許可する")
    world.say("clientのポートは接続のたびに変わるので、戻りは広い範囲を許可するしかありません。")
    world.do(_RETURN, stage.fw)
    done = _knock(stage)
    world.fact("return-rule-opens-the-way-back", done.has("succeeded"), seen=_outcome(done))
    world.say("その許可で、serverから始めたclientの3306番へのSYNも届きます。clientで採取します。")
    came = _knock_back(stage)
    world.fact("return-rule-lets-strangers-in", came, seen=came or "何も届かない")


def _stateless_change(stage: _Stage) -> None:
    world = stage.world
    world.section("stateless-change", "つないだまま、ルールを消す")
    _open(stage)
    world.do("nft flush chain ip acl forward", stage.fw)
    flows = _flows(stage)
    world.fact("stateless-change-cuts-at-once", not flows, seen=_arrives(flows))
    _give_up(stage)


def _arrives(flows: object) -> str:
    return "データが届く" if flows else "データが届かない"


def _stateful(stage: _Stage) -> None:
    world = stage.world
    world.section("stateful", "接続を覚えるフィルターに替える")
    world.say(
        "許可するのは行きだけです。接続表にある通信の続きと戻りは、`ct state`の行が通します。"
    )
    _load(stage, "stateful.nft", _STATEFUL)
    done = _knock(stage)
    world.fact("stateful-needs-no-return-rule", done.has("succeeded"), seen=_outcome(done))
    world.say("接続を1本開いたまま、fwの接続表を見ます。")
    _open(stage)
    holds, seen = _tracked(stage)
    world.fact("table-holds-both-directions", holds, seen=seen)


def _tracked(stage: _Stage) -> tuple[bool, str]:
    """Return whether the table holds the connection in both directions, and its line."""
    command = "conntrack -L -p tcp --state ESTABLISHED 2>/dev/null"
    text = stage.world.do(command, stage.fw, show=_ENTRY).text.strip()
    port = stage.here.ask("print(connection.getsockname()[1])")
    there = f"src=192.0.2.1 dst=198.51.100.1 sport={port} dport=8080"
    back = f"src=198.51.100.1 dst=192.0.2.1 sport=8080 dport={port}"
    return f"{there} {back}" in text, text or "0行"


def _stateful_change(stage: _Stage) -> None:
    world = stage.world
    world.section("stateful-change", "つないだまま、許可を消す")
    _rules(stage, "allowed")
    flows = _flows(stage)
    world.fact("established-outlives-its-rule", flows, seen=_arrives(flows))
    done = _knock(stage)
    world.fact("new-connections-need-the-rule", done.has("timed out"), seen=_outcome(done))


def _ask_closed_port(stage: _Stage, error: str) -> str:
    """Send to a UDP port where nobody listens; return how the receiving ends."""
    stage.here("question = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
    stage.here("question.settimeout(1.5)")
    stage.here("question.connect(('198.51.100.1', 9999))")
    stage.here("question.send(b'anybody?')")
    return stage.here("question.recv(100)", raises=error)


def _related(stage: _Stage) -> None:
    world = stage.world
    world.section("related", "ICMPエラーが戻る")
    world.say("UDPの9999番を許可し、待ち受けのないserverに送ります。")
    world.do("nft add rule ip sg allowed udp dport 9999 accept", stage.fw)
    answer = _ask_closed_port(stage, "ConnectionRefusedError")
    holds = answer.startswith("ConnectionRefusedError")
    world.fact("icmp-errors-come-back-as-related", holds, seen=answer)


def _rules(stage: _Stage, chain: str, *rules: str) -> None:
    """Replace the rules of a chain."""
    adds = "".join(f"; nft add rule ip sg {chain} {rule}" for rule in rules)
    stage.world.do(f"nft flush chain ip sg {chain}{adds}", stage.fw)


def _order(stage: _Stage) -> None:
    world = stage.world
    world.section("order", "ルールの順番と、断り方")
    world.say("dropを、acceptの上に置きます。")
    _rules(stage, "allowed", "ip saddr 192.0.2.1 drop", "tcp dport 8080 accept")
    done = _knock(stage)
    world.fact("first-match-decides", done.has("timed out"), seen=_outcome(done))
    world.say("dropの代わりにrejectで断ります。")
    _rules(stage, "allowed", "ip saddr 192.0.2.1 reject")
    done = _knock(stage)
    world.fact("reject-fails-at-once", done.has("Connection refused"), seen=_outcome(done))


def _go_around(stage: _Stage) -> None:
    """Let what the server sends reach the client without passing the filter."""
    here, there = (stage.client, "eth1", "203.0.113.1/24"), (stage.server, "eth1", "203.0.113.2/24")
    stage.world.network.cable(here, there)
    stage.client.sysctl("net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0")
    stage.server.route("192.0.2.1", "203.0.113.1")


def _arrives_at_server(stage: _Stage) -> bool:
    """Connect and send; return whether the server gets a connection within 1.5 seconds."""
    stage.there.ask("while select.select([listener], [], [], 0)[0]: listener.accept()[0].close()")
    stage.here("lame = socket.create_connection(('198.51.100.1', 8080))")
    stage.here("lame.sendall(b'hello')")
    return stage.there("select.select([listener], [], [], 1.5)[0] != []") == "True"


def _one_way(stage: _Stage) -> None:
    world = stage.world
    world.section("one-way", "戻りだけを別の経路に通す")
    world.say("serverからの戻りだけが、fwを通らない近道を使うようにします。行きはfwを通ります。")
    _give_up(stage)
    _go_around(stage)
    _rules(stage, "allowed", "tcp dport 8080 accept")
    world.say("clientには確立したように見えますが、serverには届きません。")
    arrived = _arrives_at_server(stage)
    world.do("ss -Htn dport = 8080", stage.client)
    world.fact("one-way-traffic-is-dropped", not arrived, seen=_arrives(arrived))


def control(world: World) -> None:
    """Swap the filters, leave rules out, forget the table, let the way back be the same."""
    stage = _set_up(world)
    _without_return_rule(stage)
    _with_memory(stage)
    _without_memory(stage)
    _other_rules(stage)


def _without_return_rule(stage: _Stage) -> None:
    world = stage.world
    world.section("stateless", "ステートレスなフィルターで、戻りの許可を後から足す")
    _load(stage, "stateless.nft", _STATELESS)
    done = _knock(stage)
    world.control(
        "return-rule-opens-the-way-back",
        done.has("succeeded"),
        why="戻りの許可がなければ、接続できない",
        seen=_outcome(done),
    )
    world.do(_RETURN, stage.fw)
    _open(stage)
    holds, seen = _tracked(stage)
    why = "ステートレスなルールだけなら、開いている接続も接続表に載らない"
    world.control("table-holds-both-directions", holds, why=why, seen=seen)
    _give_up(stage)


def _with_memory(stage: _Stage) -> None:
    world = stage.world
    world.section("stateful", "ステートフルなフィルターで、同じことをする")
    _load(stage, "stateful.nft", _STATEFUL)
    done = _knock(stage)
    late, seen = done.has("timed out"), _outcome(done)
    why = "接続を覚えるフィルターなら、戻りの許可がなくても接続できる"
    world.control("stateless-needs-a-return-rule", late, why=why, seen=seen)
    why = "許可が残っていれば、新しい接続も通る"
    world.control("new-connections-need-the-rule", late, why=why, seen=seen)
    came = _knock_back(stage)
    why = "接続表にない接続のSYNは、戻りとして扱われない"
    world.control("return-rule-lets-strangers-in", came, why=why, seen=came or "何も届かない")
    _open(stage)
    _rules(stage, "allowed")
    flows = _flows(stage)
    why = "接続を覚えるフィルターなら、続いている接続は止まらない"
    world.control("stateless-change-cuts-at-once", not flows, why=why, seen=_arrives(flows))


def _without_memory(stage: _Stage) -> None:
    world = stage.world
    world.section("forget", "接続表を空にし、ct stateの行も減らす")
    stage.there("peer.recv(100)")
    world.do("conntrack -F", stage.fw)
    flows = _flows(stage)
    why = "接続表から消えると、続きのパケットも新しい通信として判断される"
    world.control("established-outlives-its-rule", flows, why=why, seen=_arrives(flows))
    _give_up(stage)
    _rules(stage, "allowed", "tcp dport 8080 accept", "udp dport 9999 accept")
    _rules(stage, "forward", "iifname eth0 ct state new jump allowed")
    done = _knock(stage)
    why = "establishedを許可しなければ、戻りは通らない"
    holds = done.has("succeeded")
    world.control("stateful-needs-no-return-rule", holds, why=why, seen=_outcome(done))
    new, known = "iifname eth0 ct state new jump allowed", "ct state established accept"
    _rules(stage, "forward", known, new)
    answer = _ask_closed_port(stage, "TimeoutError")
    holds = answer.startswith("ConnectionRefusedError")
    why = "establishedだけを許可すると、ICMPエラーは戻らない"
    world.control("icmp-errors-come-back-as-related", holds, why=why, seen=answer)


def _other_rules(stage: _Stage) -> None:
    world = stage.world
    world.section("other-rules", "順番、断り方、経路を変える")
    _rules(stage, "allowed", "tcp dport 8080 accept", "ip saddr 192.0.2.1 drop")
    done = _knock(stage)
    why = "acceptが上なら、下のdropは見られない"
    late = done.has("timed out")
    world.control("first-match-decides", late, why=why, seen=_outcome(done))
    why = "戻りもfwを通れば、接続はserverに届く"
    arrived = _arrives_at_server(stage)
    world.control("one-way-traffic-is-dropped", not arrived, why=why, seen=_arrives(arrived))
    _rules(stage, "allowed", "ip saddr 192.0.2.1 drop")
    done = _knock(stage)
    why = "dropなら、時間切れまで待たされる"
    refused = done.has("Connection refused")
    world.control("reject-fails-at-once", refused, why=why, seen=_outcome(done))
