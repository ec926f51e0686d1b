"""How a sender learns the path's MTU, and what happens when it never hears of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labs.harness import Lab, Namespace, World, cut, feature, program

LAB = Lab(
    title="Path MTU Discoveryとブラックホール",
    chapter="protocols/icmp-pmtud",
    shows="途中のリンクだけMTUが1400の経路で、ICMPを通したときと捨てたときの転送を比べます。",
    topology=(
        ("server", "eth0", "10.0.1.1/24"),
        ("r1", "eth0", "10.0.1.254/24"),
        ("r1", "eth1", "10.0.2.1/24"),
        ("r2", "eth1", "10.0.2.2/24"),
        ("r2", "eth0", "10.0.3.254/24"),
        ("client", "eth0", "10.0.3.1/24"),
    ),
    facts={
        "router-tells-the-sender": (
            "DFの付いた大きすぎるパケットを捨てたルーターは、送信元にType 3 Code 4を返す"
        ),
        "message-names-the-mtu": "Type 3 Code 4には、次のリンクのMTUが書いてある",
        "sender-shrinks-and-finishes": "通知を受けた送信元は、小さく分け直して転送を終える",
        "sender-remembers": "送信元は、知らされたPMTUを宛先ごとに覚える",
        "df-ping-finds-the-mtu": "DF付きのpingで通る最大のデータは、PMTUより28バイト小さい",
        "black-hole-swallows-the-big": "通知が捨てられると、小さい応答は届くのに大きい応答は止まる",
        "probing-recovers": "送信元のtcp_mtu_probingが1なら、通知が届かなくても転送を終える",
        "clamp-rewrites-the-mss": "MSSクランプは、SYNのMSSを「経路のMTU−40」に書き換える",
        "echo-request-is-not-needed": "Echo Requestだけを捨てても、大きい転送は止まらない",
        "inbound-reply-does-not-hide": "受信するEcho Replyを捨てても、外からのpingには応答する",
        "outbound-reply-hides": "送信するEcho Replyを捨てると、外からのpingは失敗する",
        "traceroute-needs-no-echo": (
            "Linuxの既定のtracerouteは、Echo RequestとEcho Replyを捨てても宛先まで届く"
        ),
    },
    needs=(
        program("ip", "iproute2"),
        program("ss", "iproute2"),
        program("tcpdump"),
        program("nft", "nftables"),
        program("curl"),
        program("ping", "iputils-ping"),
        program("traceroute"),
        program("python3"),
        feature("network-namespace"),
        feature("nftables"),
    ),
    seconds=25,
    stable=True,
)

_SERVE = """\
import http.server, socketserver
handler = http.server.SimpleHTTPRequestHandler
socketserver.ThreadingTCPServer(("", 8080), handler).serve_forever()
"""
_NO_TIME = cut(r"\d+(?= milliseconds)")
_ROUTE = cut(r"uid \d+", r"(?<=expires )\d+sec")
_SYN = cut(r"TS val \d+ ecr \d+", r"win \d+")
_TOO_BIG = r"10\.0\.1\.254 > 10\.0\.1\.1: .*need to frag \(mtu (\d+)\)"
_WHOLE, _SHRUNK = r"tcp 1448$", r"tcp 1348$"
_BIG_ONES = "'icmp or (src port 8080 and ip[6] & 0x40 != 0 and greater 1000)'"


@dataclass(frozen=True)
class _Stage:
    """A server and a client with two routers between them."""

    world: World
    server: Namespace
    r1: Namespace
    client: Namespace


def _set_up(world: World, middle: int) -> _Stage:
    world.section("hosts", "2台のルーターをはさんでつなぐ")
    world.say(f"両端のMTUは1500、r1とr2の間は{middle}です。途中の値は、両端には分かりません。")
    net = world.network
    server, client = net.namespace("server"), net.namespace("client")
    r1, r2 = net.router("r1"), net.router("r2")
    net.cable((server, "eth0", "10.0.1.1/24"), (r1, "eth0", "10.0.1.254/24"))
    net.cable((r1, "eth1", "10.0.2.1/24"), (r2, "eth1", "10.0.2.2/24"), mtu=middle)
    net.cable((r2, "eth0", "10.0.3.254/24"), (client, "eth0", "10.0.3.1/24"))
    server.route("default", "10.0.1.254")
    client.route("default", "10.0.3.254")
    r1.route("10.0.3.0/24", "10.0.2.2")
    r2.route("10.0.1.0/24", "10.0.2.1")
    stage = _Stage(world, server, r1, client)
    _serve(stage)
    return stage


def _serve(stage: _Stage) -> None:
    world, server = stage.world, stage.server
    world.say(
        "serverに、20万バイトのファイルと小さなファイルを置きます。"
        "送信をまとめる機能は切り、パケットを1つずつ見えるようにします。"
    )
    world.do("head -c 200000 /dev/zero > big; echo ok > small")
    world.do("ip link set eth0 gso_max_segs 1", server)
    world.file("serve.py", _SERVE)
    world.start("python3 serve.py", server)
    world.until(lambda: world.ask("ss -Hltn sport = 8080", server).text, "待ち受けが始まる")


def run(world: World) -> None:
    """Discover the path's MTU, lose the message, get around the loss, then stop only pings."""
    stage = _set_up(world, middle=1400)
    _discovery(stage)
    _df_ping(stage)
    _black_hole(stage)
    _probing(stage)
    _clamp(stage)
    _only_echo_request(stage)
    _stop_pings(stage)


def _fetch(stage: _Stage, limit: int = 40) -> bool:
    """Fetch the big file; return whether all of it came within the limit in seconds."""
    command = f"curl -sS -m {limit} http://10.0.1.1:8080/big | wc -c"
    return stage.world.do(command, stage.client, show=_NO_TIME).has("^200000$")


def _fetch_small(stage: _Stage) -> bool:
    command = "curl -sS -m 20 http://10.0.1.1:8080/small"
    return stage.world.do(command, stage.client).has("^ok$")


def _first_of_each(text: str) -> str:
    """Show the first whole segment, the first message and the first smaller segment."""
    found = [re.search(rf"^.*{kind}.*$", text, re.M) for kind in (_WHOLE, _TOO_BIG, _SHRUNK)]
    return "\n…\n".join(one[0] for one in found if one)


def _watched_fetch(stage: _Stage) -> tuple[bool, str]:
    """Fetch the big file; return whether it came, and the big packets and ICMP at the server."""
    world = stage.world
    capture = stage.server.capture("eth0", _BIG_ONES, options="-nn -t -q")
    came = _fetch(stage)
    world.until(lambda: len(capture.lines) > 100, "大きいパケットが採取される")
    return came, world.stop(capture, show=_first_of_each).text


def _prove_discovery(stage: _Stage, packets: str, *, came: bool) -> None:
    world, message = stage.world, _message(packets)
    world.fact("router-tells-the-sender", message, seen=message)
    world.fact("message-names-the-mtu", "(mtu 1400)" in message, seen=message[-10:])
    seen = "1448バイトのデータを、1348バイトずつに分け直した"
    world.fact("sender-shrinks-and-finishes", came and _shrank(packets), seen=seen)


def _message(packets: str) -> str:
    found = re.search(_TOO_BIG, packets)
    return found[0] if found else ""


def _shrank(packets: str) -> bool:
    return bool(re.search(rf"(?ms){_WHOLE}.*{_SHRUNK}", packets))


def _remembered(stage: _Stage) -> bool:
    """Return whether the server remembers a path MTU for the client and for nobody else."""
    command = "ip route get 10.0.3.1; ip route get 10.0.2.2"
    routes = stage.world.do(command, stage.server, show=_ROUTE)
    return routes.all(r"mtu \d+|^10\S+") == ["10.0.3.1", "mtu 1400", "10.0.2.2"]


def _discovery(stage: _Stage) -> None:
    world = stage.world
    world.section("discovery", "送信元がPMTUを知る")
    world.say(
        "serverで、ICMPと、DFの付いた（`ip[6] & 0x40`）大きいパケットを採取しながら、"
        "大きいファイルを取ります。"
    )
    came, packets = _watched_fetch(stage)
    _prove_discovery(stage, packets, came=came)
    world.say("知らされたPMTUは、宛先ごとに残ります（既定では10分間）。")
    seen = "10.0.3.1にだけ、mtu 1400の記録がある"
    world.fact("sender-remembers", _remembered(stage), seen=seen)


def _ping(stage: _Stage, *, from_server: bool = False) -> bool:
    """Ping the server from the client, or the other way; return whether an answer came."""
    host, to = (stage.server, "10.0.3.1") if from_server else (stage.client, "10.0.1.1")
    return stage.world.do(f"ping -q -c 1 -W 1 {to} | grep packets", host).has(" 0% packet loss")


def _df_pings(stage: _Stage) -> tuple[bool, str]:
    """Return whether 1372 bytes pass and 1373 do not, and what was seen."""
    answers = {}
    for size in (1372, 1373):
        command = f"ping -M do -s {size} -c 1 10.0.3.1 | grep from"
        answers[size] = stage.world.do(command, stage.server, code=None).has("bytes from")
    seen = "、".join(f"{size}の応答は{_came(answer)}" for size, answer in answers.items())
    return answers == {1372: True, 1373: False}, seen


def _df_ping(stage: _Stage) -> None:
    world = stage.world
    world.section("df-ping", "pingでPMTUを測る")
    world.say(
        "`-M do`でDFを付け、`-s`でデータの大きさを変えます。IPとICMPのヘッダーは28バイトです。"
    )
    holds, seen = _df_pings(stage)
    world.fact("df-ping-finds-the-mtu", holds, seen=seen)


def _filter(stage: _Stage, *rules: str) -> None:
    """Replace the rules of the server's filter."""
    adds = "".join(f"; nft add rule ip lab {rule}" for rule in rules)
    stage.world.do(f"nft flush table ip lab{adds}", stage.server)


def _forget(stage: _Stage) -> None:
    stage.world.do("ip route flush cache", stage.server)


def _make_filter(stage: _Stage) -> None:
    stage.world.do("nft add table ip lab", stage.server)
    for hook in ("input", "output"):
        chain = f"{hook} '{{ type filter hook {hook} priority 0; }}'"
        stage.world.do(f"nft add chain ip lab {chain}", stage.server)


def _black_hole(stage: _Stage) -> None:
    world = stage.world
    world.section("black-hole", "通知を捨てて、ブラックホールを作る")
    world.say("serverのフィルターでICMPをすべて捨て、覚えたPMTUを消します。")
    _make_filter(stage)
    _filter(stage, "input ip protocol icmp drop")
    _forget(stage)
    small, big = _fetch_small(stage), _fetch(stage, 2)
    world.say("serverは、通らない大きさのまま、間隔を延ばしながら再送しています。")
    grep = "grep -oE '(backoff|\\bmss|pmtu):[0-9]+'"
    command = f"ss -Htin state connected sport = 8080 | {grep}"
    world.do(command, stage.server, until="backoff", show=cut(r"(?<=backoff:)\d+"))
    seen = f"小さい応答は{_came(small)}、大きい応答は{_came(big)}"
    world.fact("black-hole-swallows-the-big", small and not big, seen=seen)


def _came(came: object) -> str:
    return "届く" if came else "届かない"


def _probing(stage: _Stage) -> None:
    world = stage.world
    world.section("probing", "通知に頼らずに小さくする")
    world.say(
        "再送が続いたら小さいセグメントを試す設定にします。"
        "気付くまでの再送に数秒かかりますが、やがて届きます。"
    )
    stage.server.sysctl("net.ipv4.tcp_mtu_probing=1")
    came = _fetch(stage)
    world.fact("probing-recovers", came, seen=f"ICMPなしで、大きい応答が{_came(came)}")
    stage.server.sysctl("net.ipv4.tcp_mtu_probing=0")


def _clamp(stage: _Stage) -> None:
    world, r1 = stage.world, stage.r1
    world.section("clamp", "MSSをルーターで書き換える")
    world.say("r1で、通り過ぎるSYNのMSSを経路のMTUに合わせます。serverに届くSYNを見ます。")
    world.do("nft add table ip clamp", r1)
    world.do("nft add chain ip clamp forward '{ type filter hook forward priority 0; }'", r1)
    rule = "tcp flags syn tcp option maxseg size set rt mtu"
    world.do(f"nft add rule ip clamp forward {rule}", r1)
    mss, came = _syn_mss(stage)
    seen = f"MSSは{mss}、ICMPなしで大きい応答が{_came(came)}"
    world.fact("clamp-rewrites-the-mss", mss == "1360" and came, seen=seen)
    world.do("nft delete table ip clamp", r1)


def _syn_mss(stage: _Stage, limit: int = 20) -> tuple[str, bool]:
    """Fetch the big file; return the MSS in the SYN at the server, and whether the file came."""
    syn = "'tcp[tcpflags] == tcp-syn'"
    capture = stage.server.capture("eth0", syn, options="-nn -t -c 1")
    came = _fetch(stage, limit)
    mss = capture.wait_for(r"mss (\d+)")[1]
    stage.world.stop(capture, show=_SYN)
    return mss, came


def _only_echo_request(stage: _Stage) -> None:
    world = stage.world
    world.section("only-echo-request", "Echo Requestだけを捨てる")
    world.say("pingに答えないだけなら、Type 3 Code 4は届きます。")
    _filter(stage, "input icmp type echo-request drop")
    _forget(stage)
    answered, came = _ping(stage), _fetch(stage)
    seen = f"pingの応答は{_came(answered)}、大きい応答は{_came(came)}"
    world.fact("echo-request-is-not-needed", came and not answered, seen=seen)


def _stop_pings(stage: _Stage) -> None:
    world = stage.world
    world.section("echo-reply", "Echo Replyを捨てる向きを変える")
    world.say("受信するEcho Replyを捨てます。これは、server自身が打ったpingへの応答です。")
    _filter(stage, "input icmp type echo-reply drop")
    own, answered = _ping(stage, from_server=True), _ping(stage)
    seen = f"自分のpingの応答は{_came(own)}、外からのpingの応答は{_came(answered)}"
    world.fact("inbound-reply-does-not-hide", answered and not own, seen=seen)
    world.say("送信するEcho Replyを捨てます。これで、外からのpingが失敗します。")
    _filter(stage, "output icmp type echo-reply drop")
    answered = _ping(stage)
    world.fact("outbound-reply-hides", not answered, seen=f"pingの応答は{_came(answered)}")
    world.say("Echo Requestも捨てますが、UDPを送るtracerouteには関係ありません。")
    _filter(stage, "input icmp type echo-request drop", "output icmp type echo-reply drop")
    holds = _traced(stage)
    world.fact("traceroute-needs-no-echo", holds, seen=f"10.0.1.1からの応答が{_came(holds)}")


def _traced(stage: _Stage) -> bool:
    command = "traceroute -n -q 1 -w 1 -m 3 10.0.1.1"
    return stage.world.do(command, stage.client).has(r"^ *3 +10\.0\.1\.1 ")


def control(world: World) -> None:
    """Let the link be wide, let the message pass, leave the helpers out, drop other ICMP."""
    stage = _set_up(world, middle=1500)
    _wide_link(stage)
    _narrow(stage)
    _message_passes(stage)
    _nothing_helps(stage)
    _other_filters(stage)


def _wide_link(stage: _Stage) -> None:
    world = stage.world
    world.section("wide-link", "途中のMTUも1500にする")
    came, packets = _watched_fetch(stage)
    message, seen = _message(packets), "Type 3 Code 4は0個"
    why = "捨てられるパケットがなければ、通知も来ない"
    world.control("router-tells-the-sender", message, why=why, seen=seen)
    world.control("message-names-the-mtu", "(mtu 1400)" in message, why=why, seen=seen)
    world.control(
        "sender-shrinks-and-finishes",
        came and _shrank(packets),
        why="通知が来なければ、小さくせずに転送を終える",
        seen="1448バイトのまま",
    )
    why = "通知が来なければ、PMTUは覚えられない"
    world.control("sender-remembers", _remembered(stage), why=why, seen="mtuの記録なし")
    why = "途中が1500なら、1373バイトのデータも通る"
    holds, seen = _df_pings(stage)
    world.control("df-ping-finds-the-mtu", holds, why=why, seen=seen)


def _narrow(stage: _Stage) -> None:
    """Make the link in the middle narrow from here on."""
    world = stage.world
    world.section("narrow-link", "途中のMTUを1400に戻す")
    world.do("ip link set eth1 mtu 1400", stage.r1)
    _make_filter(stage)


def _message_passes(stage: _Stage) -> None:
    world = stage.world
    world.section("message-passes", "Type 3 Code 4だけを通す")
    needed = "input icmp type destination-unreachable icmp code frag-needed accept"
    _filter(stage, needed, "input ip protocol icmp drop")
    small, big = _fetch_small(stage), _fetch(stage)
    world.control(
        "black-hole-swallows-the-big",
        small and not big,
        why="通知が届けば、ほかのICMPを捨てても大きい応答が届く",
        seen=f"小さい応答は{_came(small)}、大きい応答も{_came(big)}",
    )


def _nothing_helps(stage: _Stage) -> None:
    world = stage.world
    world.section("nothing-helps", "ICMPをすべて捨て、対策もしない")
    _filter(stage, "input ip protocol icmp drop")
    _forget(stage)
    mss, came = _syn_mss(stage, limit=8)
    seen = f"大きい応答は{_came(came)}"
    why = "クランプしなければ、MSSは1460のままである"
    holds = mss == "1360" and came
    world.control("clamp-rewrites-the-mss", holds, why=why, seen=f"MSSは{mss}、{seen}")
    why = "tcp_mtu_probingが0なら、8秒待っても届かない"
    world.control("probing-recovers", came, why=why, seen=seen)
    why = "Type 3 Code 4も捨てると、大きい応答は止まる"
    world.control("echo-request-is-not-needed", came, why=why, seen=seen)


def _other_filters(stage: _Stage) -> None:
    world = stage.world
    world.section("other-filters", "捨てるICMPを変える")
    _filter(stage, "input icmp type echo-request drop")
    answered, seen = _ping(stage), "外からのpingの応答は届かない"
    why = "受信するEcho Requestを捨てれば、外からのpingには応答しない"
    world.control("inbound-reply-does-not-hide", answered, why=why, seen=seen)
    _filter(stage)
    hidden, why = not _ping(stage), "フィルターがなければ、外からのpingに応答する"
    world.control("outbound-reply-hides", hidden, why=why, seen="pingの応答は届く")
    _filter(stage, "output ip protocol icmp drop")
    why = "ICMPをすべて捨てると、宛先のPort Unreachableが返らない"
    world.control("traceroute-needs-no-echo", _traced(stage), why=why, seen="3段目の応答がない")
