"""What a prefix length decides: whom to ask for, which source to use, and what IPv6 adds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labs.harness import Done, Lab, Namespace, World, cut, feature, only, program

LAB = Lab(
    title="アドレスとプレフィックス",
    chapter="network/ip-addressing",
    shows="プレフィックス長を変えながら、直接届けるか、ルーターに渡すかの判断を見ます。",
    topology=(
        ("pc1", "eth0", "10.0.1.1/24"),
        ("pc1", "eth0", "10.0.1.1/16"),
        ("pc1", "eth0", "10.0.1.1/32"),
        ("pc2", "eth0", "10.0.1.200/24"),
        ("pc2", "eth0", "10.0.1.200/25"),
        ("router", "eth0", "10.0.1.254/24"),
        ("router", "eth1", "10.0.2.254/24"),
        ("router", "eth2", "10.0.9.2/31"),
        ("router", "eth2", "10.0.9.2/30"),
        ("edge", "eth0", "10.0.9.3/31"),
        ("edge", "eth0", "10.0.9.3/30"),
        ("server", "eth0", "10.0.2.10/24"),
        ("server", "lo", "192.0.2.1/32"),
    ),
    facts={
        "near-asks-destination": "自分のプレフィックスに入る宛先なら、宛先のMACをARPで尋ねる",
        "far-asks-gateway": "自分のプレフィックスに入らない宛先なら、ゲートウェイのMACを尋ねる",
        "narrow-prefix-detours": "片方だけ狭いと、行きはルーターを通り、帰りは直接届く",
        "wide-prefix-asks-in-vain": (
            "広すぎると、遠くの宛先を直接尋ねて、Destination Host Unreachableになる"
        ),
        "wide-prefix-spares-others": "広すぎても、その範囲に入らない宛先には届く",
        "wide-prefix-cannot-answer": "広すぎるホストには要求は届くが、返事が出ていかない",
        "no-route-fails-at-once": "経路がなければ、何も送らずにNetwork is unreachableになる",
        "p31-uses-both": "/31では、2つのアドレスを両方ともホストに使える",
        "broadcast-needs-permission": "ブロードキャストは、許可を明示しなければ送れない",
        "loopback-stays-inside": "127.0.0.0/8のどのアドレスも自分であり、外へは出ない",
        "source-follows-route": "送信元アドレスは、宛先への経路に合わせて選ばれる",
        "link-local-by-itself": "IPv6のリンクローカルアドレスは、何も設定しなくても付く",
        "link-local-needs-zone": "リンクローカルの宛先には、インターフェースの指定が要る",
        "ra-gives-address": "ルーター広告を受けると、グローバルなアドレスが自動で付く",
        "ra-gives-default-route": "ルーター広告を受けると、その送信元へデフォルトルートが向く",
        "ipv6-source-matches-scope": "IPv6の送信元は、宛先のスコープに合うものが選ばれる",
        "temporary-is-preferred": "use_tempaddrが2なら、送信元に一時アドレスが使われる",
    },
    needs=(
        program("ip", "iproute2"),
        program("ping", "iputils-ping"),
        program("tcpdump"),
        program("python3"),
        feature("network-namespace"),
        feature("bridge"),
    ),
    seconds=45,
    limit=120,
)

_SERVER = "10.0.2.10"
_PC1, _PC2, _GATEWAY = "10.0.1.1", "10.0.1.200", "10.0.1.254"
_PREFIX = "2001:db8:1:"
_ARP = re.compile(r"Request who-has ([\d.]+)(?: \(\S+\))? tell 10\.0\.1\.1,")
_SHORT = cut(r", length \d+$")
_HOP = cut(r"tos 0x0, ", r"(?<=ttl \d\d, ).*?(?=\n)", r"(?<=echo re(ply|que)).*(?<=length \d\d)$")
_LIFE = cut(r"\A\d+: eth0.*\n", r"\n\s+valid_lft.*", r" proto \w+")

_EACH = "net.ipv6.conf.eth0"
_KERNEL_DEFAULTS = f"sysctl -qw {_EACH}.addr_gen_mode=0 {_EACH}.use_tempaddr=0 {_EACH}.accept_ra=1"

_RA = """\
import socket, struct, sys
prefix = socket.inet_pton(socket.AF_INET6, sys.argv[1])
flags, router_lifetime = int(sys.argv[2], 16), int(sys.argv[3])
# 134番、Hop Limitの推奨64、デフォルトルーターでいられる秒数
message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, router_lifetime, 0, 0)
# プレフィックス情報: /64、フラグ、有効な秒数、優先して使う秒数
message += struct.pack("!BBBBIII", 3, 4, 64, flags, 86400, 14400, 0) + prefix
sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
sender.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))
"""


@dataclass(frozen=True)
class _Stage:
    """A LAN of two computers and a router, and a server behind the router."""

    world: World
    pc1: Namespace
    pc2: Namespace
    router: Namespace
    server: Namespace


def _set_up(world: World, pc1: str = "24", pc2: str = "24") -> _Stage:
    """Build the network; the prefix lengths of the computers may be changed."""
    world.section("hosts", "スイッチに2台のPCとルーターをつなぐ")
    world.say("名前空間switchのブリッジが、スイッチの役をします。serverはルーターの先です。")
    network = world.network
    switch, router = network.namespace("switch"), network.router("router")
    first, second = network.namespace("pc1"), network.namespace("pc2")
    server = network.namespace("server")
    network.cable((first, "eth0", f"{_PC1}/{pc1}"), (switch, "p1", ""))
    network.cable((second, "eth0", f"{_PC2}/{pc2}"), (switch, "p2", ""))
    network.cable((router, "eth0", f"{_GATEWAY}/24"), (switch, "p3", ""))
    network.bridge(switch, "br0", "p1", "p2", "p3")
    network.cable((router, "eth1", "10.0.2.254/24"), (server, "eth0", f"{_SERVER}/24"))
    if pc1 == "32":
        world.set_up(f"ip -n pc1 route add {_GATEWAY} dev eth0")
    for pc in (first, second):
        pc.route("default", _GATEWAY)
    server.route("default", "10.0.2.254")
    world.say("serverには、離れた範囲のアドレス192.0.2.1も持たせます。")
    server.address("lo", "192.0.2.1/32")
    router.route("192.0.2.1", _SERVER)
    return _Stage(world, first, second, router, server)


def run(world: World) -> None:
    """Compare near and far, mistake prefix lengths, and meet special and IPv6 addresses."""
    stage = _set_up(world)
    _near_and_far(stage)
    _wide(stage)
    _narrow(stage)
    _no_route(stage)
    _source(stage)
    _point_to_point(stage)
    _broadcast(stage)
    _loopback(stage)
    _link_local(stage)
    _advertise(stage)
    _choose(stage)
    _temporary(stage)


# Reading


def _ping(stage: _Stage, target: str, source: Namespace | None = None) -> bool:
    """Ping once; return whether there was an answer."""
    command = f"ping -q -c 1 -W 1 {target} | grep received"
    return stage.world.do(command, source or stage.pc1).has(" 1 received")


def _asked(stage: _Stage, target: str) -> list[str]:
    """Return for whom pc1, knowing no neighbour, asks when it pings the target."""
    world = stage.world
    world.ask("ip neigh flush dev eth0", stage.pc1)
    capture = stage.pc1.capture("eth0", "arp", options="-nn -t")
    _ping(stage, target)
    world.until(lambda: _ARP.search(capture.text), "ARPが採取される")
    return _ARP.findall(world.stop(capture, show=_SHORT).text)


def _change_prefix(stage: _Stage, host: Namespace, address: str, old: int, new: int) -> None:
    """Change a prefix length; the routes by way of the address go and return with it."""
    stage.world.set_up(f"ip -n {host.name} addr del {address}/{old} dev eth0")
    host.address("eth0", f"{address}/{new}")
    host.route("default", _GATEWAY)


# Near and far


def _near_and_far(stage: _Stage) -> None:
    world = stage.world
    world.section("near-and-far", "近い宛先と遠い宛先に送る")
    world.say("pc1の経路表です。1行目がゲートウェイ、2行目が直接届く範囲です。")
    world.do("ip route", stage.pc1)
    world.say("10.0.1.0/24に入るpc2へpingし、pc1が誰のMACを尋ねるかを見ます。")
    asked = _asked(stage, _PC2)
    seen = f"尋ねたのは{asked[0]}"
    world.fact("near-asks-destination", asked[0] == _PC2, seen=seen)
    world.say("10.0.1.0/24に入らないserverへpingします。")
    asked = _asked(stage, _SERVER)
    seen = f"尋ねたのは{asked[0]}"
    world.fact("far-asks-gateway", asked[0] == _GATEWAY, seen=seen)


def _refused_by_self(stage: _Stage) -> bool:
    """Ping the server; return whether pc1 itself said that the host can't be reached."""
    done = stage.world.do(f"ping -c 1 {_SERVER}", stage.pc1, code=None, show=only("From|received"))
    return done.has(rf"From {_PC1} .*Destination Host Unreachable")


def _server_unanswered(stage: _Stage) -> bool:
    """Ping pc1 from the server; return whether the request came and no reply did."""
    world = stage.world
    capture = stage.pc1.capture("eth0", "'icmp or arp'", options="-nn -t")
    answered = _ping(stage, _PC1, stage.server)
    capture.wait_for("echo request")
    world.stop(capture, show=_SHORT)
    return not answered


def _wide(stage: _Stage) -> None:
    world = stage.world
    world.section("wide", "プレフィックスが広すぎるホスト")
    world.say("pc1だけを、誤って/16にします。10.0.2.10も「近い」ことになります。")
    _change_prefix(stage, stage.pc1, _PC1, 24, 16)
    _asked(stage, _SERVER)
    holds = _refused_by_self(stage)
    world.fact("wide-prefix-asks-in-vain", holds, seen="pc1自身がHost Unreachableを報告")
    world.say("同じserverの、10.0.0.0/16に入らないアドレスへpingします。")
    holds = _ping(stage, "192.0.2.1")
    world.fact("wide-prefix-spares-others", holds, seen="192.0.2.1からは応答あり")
    world.say("逆に、serverからpc1へpingし、pc1で採取します。")
    holds = _server_unanswered(stage)
    world.fact("wide-prefix-cannot-answer", holds, seen="要求は届き、返事は出ない")
    _change_prefix(stage, stage.pc1, _PC1, 16, 24)


def _ways(stage: _Stage) -> list[str]:
    """Ping pc1 from pc2; return the TTL of the request and of the reply, seen at pc1."""
    world = stage.world
    for pc in (stage.pc1, stage.pc2):
        world.ask("ip neigh flush dev eth0", pc)
    capture = stage.pc1.capture("eth0", "icmp", options="-nn -t -v")
    _ping(stage, _PC1, stage.pc2)
    capture.wait_for("echo reply")
    return world.stop(capture, show=_HOP).all(r"ttl (\d+),.*\n.*echo re(?:quest|ply)")


def _narrow(stage: _Stage) -> None:
    world = stage.world
    world.section("narrow", "プレフィックスが狭すぎるホスト")
    world.say("pc2だけを、誤って/25にします。10.0.1.1は「遠い」ことになります。")
    _change_prefix(stage, stage.pc2, _PC2, 24, 25)
    world.do(f"ip route get {_PC1}", stage.pc2, show=only("via|dev"))
    world.say("pc2からpc1へpingし、pc1で採取します。TTLを比べます。")
    ttls = _ways(stage)
    seen = f"要求のTTLは{ttls[0]}、返事は{ttls[1]}"
    world.fact("narrow-prefix-detours", ttls == ["63", "64"], seen=seen)
    _change_prefix(stage, stage.pc2, _PC2, 25, 24)


def _fails_at_once(stage: _Stage) -> tuple[Done, list[str]]:
    """Ping the server, then pc2; return what was said, and the pings that left pc1."""
    world = stage.world
    capture = stage.pc1.capture("eth0", "icmp", options="-nn -t")
    done = world.do(f"ping -c 1 {_SERVER}", stage.pc1, code=None, show=only("unreach|received"))
    _ping(stage, _PC2)
    capture.wait_for(f"{_PC2}: ICMP echo request")
    text = world.stop(capture, show=_SHORT).text
    return done, re.findall(r"> ([\d.]+): ICMP echo request", text)


def _no_route(stage: _Stage) -> None:
    world = stage.world
    world.section("no-route", "経路のない宛先に送る")
    world.say("pc1のデフォルトルートを消し、server、pc2の順にpingします。")
    world.set_up("ip -n pc1 route del default")
    done, sent = _fails_at_once(stage)
    holds = done.has("Network is unreachable") and sent == [_PC2]
    world.fact("no-route-fails-at-once", holds, seen="出ていったのはpc2宛てだけ")
    stage.pc1.route("default", _GATEWAY)


# Source


def _sources(stage: _Stage, host: Namespace, *targets: str) -> list[str]:
    """Return the source addresses that the kernel takes for the targets."""
    here = stage.world.python(host)
    here("import socket")
    family = "socket.AF_INET6" if ":" in targets[0] else "socket.AF_INET"
    answers = []
    for target in targets:
        here(f"sender = socket.socket({family}, socket.SOCK_DGRAM)")
        zone = ", 0, socket.if_nametoindex('eth0')" if target.startswith("fe80") else ""
        here(f"sender.connect(('{target}', 9{zone}))")
        answers.append(here("sender.getsockname()[0]").strip().strip("'"))
    return answers


def _source(stage: _Stage) -> None:
    world = stage.world
    world.section("source", "送信元アドレスの選ばれ方")
    world.say("2つのアドレスを持つrouterで、UDPのソケットを2つの宛先へ向けます。")
    sources = _sources(stage, stage.router, _PC1, _SERVER)
    world.say("`ip route get`の`src`でも、同じ答えが分かります。")
    world.do(f"ip route get {_SERVER}", stage.router, show=only("dev"))
    holds = sources == [_GATEWAY, "10.0.2.254"]
    world.fact("source-follows-route", holds, seen="と".join(sources))


# Special addresses


def _join_routers(stage: _Stage, length: int) -> bool:
    """Join a second router; return whether the first can ping it."""
    network = stage.world.network
    edge = network.router("edge")
    network.cable(
        (stage.router, "eth2", f"10.0.9.2/{length}"), (edge, "eth0", f"10.0.9.3/{length}")
    )
    done = stage.world.do(
        "ping -c 1 -W 1 10.0.9.3 2>&1 | grep -E 'broadcast|received'",
        stage.router,
        until="broadcast| 1 received",
    )
    return done.has(" 1 received")


def _point_to_point(stage: _Stage) -> None:
    world = stage.world
    world.section("p31", "2台のルーターを/31でつなぐ")
    world.say("/31にはアドレスが2つしかありません。両端のルーターで使います。")
    holds = _join_routers(stage, 31)
    world.fact("p31-uses-both", holds, seen="10.0.9.2と10.0.9.3で通じる")
    world.say("経路表には、この2つの範囲がそのまま載ります。")
    world.do("ip route show dev eth2", stage.router)


def _broadcast(stage: _Stage) -> None:
    world = stage.world
    world.section("broadcast", "ブロードキャストアドレスに送る")
    world.say("10.0.1.0/24の最後のアドレスへ、まずpingで送ります。")
    world.do("ping -c 1 10.0.1.255 2>&1", stage.pc1, code=None, show=only("broadcast"))
    world.say("プログラムからも、そのままでは送れません。")
    here = world.python(stage.pc1)
    here("import socket")
    here("sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
    refused = here("sender.sendto(b'hello', ('10.0.1.255', 9))", raises="PermissionError")
    world.say("許可を付けると送れて、pc2に届きます。フレームの宛先は全員あてです。")
    capture = stage.pc2.capture("eth0", "'udp port 9'", options="-nn -t -e")
    here("sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)")
    here("sender.sendto(b'hello', ('10.0.1.255', 9))")
    capture.wait_for("10.0.1.255")
    world.stop(capture, show=cut(r"(?<=, )ethertype IPv4 \(0x\w+\), "))
    holds = "Permission denied" in refused
    world.fact("broadcast-needs-permission", holds, seen="SO_BROADCASTなしではPermission denied")


def _stays_inside(stage: _Stage, target: str) -> bool:
    """Ping, then ping pc2; return whether the first had an answer and only the second left."""
    capture = stage.pc1.capture("eth0", "'icmp[icmptype] = icmp-echo'", options="-nn -t")
    answered = _ping(stage, target)
    _ping(stage, _PC2)
    capture.wait_for(f"> {_PC2}:.*seq 1")
    count = len(re.findall("echo request", stage.world.stop(capture, show=_SHORT).text))
    return answered and count == 1


def _loopback(stage: _Stage) -> None:
    world = stage.world
    world.section("loopback", "127で始まるアドレスに送る")
    world.say("127.1.2.3、pc2の順にpingし、eth0で採取します。")
    holds = _stays_inside(stage, "127.1.2.3")
    world.fact("loopback-stays-inside", holds, seen="応答があり、eth0に出たのはpc2宛てだけ")


# IPv6


def _use_ipv6(stage: _Stage, mode: int = 0) -> str:
    """Switch IPv6 on; return pc1's addresses once they are checked."""
    world = stage.world
    world.say(
        "MACアドレスを読みやすい値に決めてから、IPv6を有効にします（設定はカーネルの既定です）。"
    )
    for number, host in ((1, stage.pc1), (2, stage.pc2), (254, stage.router)):
        world.set_up(f"ip -n {host.name} link set eth0 address 2:0:0:0:0:{number:x}")
        world.ask(_KERNEL_DEFAULTS, host)
        if mode:
            host.sysctl(f"net.ipv6.conf.eth0.addr_gen_mode={mode}")
        host.sysctl("net.ipv6.conf.eth0.disable_ipv6=0")
    if not mode:
        _check_others(stage)
    return _settled(stage, "" if mode else "fe80")


def _check_others(stage: _Stage) -> None:
    """Wait until the link-local addresses of the others are checked for duplicates."""
    for host in (stage.pc2, stage.router):
        stage.world.ask("ip -6 addr show dev eth0", host, until=r"(?s)\A(?!.*tentative).*fe80")


def _settled(stage: _Stage, until: str = "", what: str = "") -> str:
    """Wait until pc1's addresses are there and checked for duplicates; show them."""
    regex = rf"(?s)\A(?!.*tentative).*{until}"
    command = f"ip -6 addr show dev eth0 {what}".rstrip()
    return stage.world.do(command, stage.pc1, until=regex, show=_LIFE).text


def _link_local(stage: _Stage) -> None:
    world = stage.world
    world.section("link-local", "IPv6を有効にしただけのホスト")
    text = _use_ipv6(stage)
    world.fact("link-local-by-itself", "fe80::ff:fe00:1/64" in text, seen="fe80::ff:fe00:1/64")
    world.say("pc2のリンクローカルアドレスへ、インターフェースを示さずにつなぎます。")
    here = world.python(stage.pc1)
    here("import socket")
    here("sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)")
    refused = here("sender.connect(('fe80::ff:fe00:2', 9))", raises="OSError")
    world.say("`%eth0`を付けると、届きます。")
    answered = _ping(stage, "fe80::ff:fe00:2%eth0")
    holds = "Invalid argument" in refused and answered
    world.fact("link-local-needs-zone", holds, seen="付けなければInvalid argument")


def _send_ra(stage: _Stage, flags: str = "c0", lifetime: int = 1800) -> None:
    stage.world.do(f"python3 ra.py {_PREFIX}: {flags} {lifetime}", stage.router)


def _default_route(stage: _Stage, until: str = "") -> bool:
    done = stage.world.do(
        "ip -6 route show default", stage.pc1, until=until, show=cut(r" expires.*")
    )
    return done.has(r"default via fe80::ff:fe00:fe dev eth0 proto ra")


def _advertise(stage: _Stage) -> None:
    world = stage.world
    world.section("router-advertisement", "ルーター広告（RA）を送る")
    world.say("RAを1つ送るだけの、小さなプログラムです（実際にはradvdやBIRDなどを使います）。")
    world.file("ra.py", _RA)
    world.say("フラグc0は、「このリンクにある」（L）と「自分でアドレスを作ってよい」（A）です。")
    _send_ra(stage)
    text = _settled(stage, _PREFIX)
    holds = f"{_PREFIX}:ff:fe00:1/64" in text
    world.fact("ra-gives-address", holds, seen=f"{_PREFIX}:ff:fe00:1/64")
    holds = _default_route(stage, until="default")
    world.fact("ra-gives-default-route", holds, seen="次ホップはfe80::ff:fe00:fe")


def _choose(stage: _Stage) -> None:
    world = stage.world
    world.section("ipv6-source", "IPv6の送信元アドレスの選ばれ方")
    world.say("pc1には、アドレスが2つあります。宛先を変えて、送信元を比べます。")
    sources = _sources(stage, stage.pc1, "fe80::ff:fe00:2", f"{_PREFIX}:ff:fe00:2")
    holds = sources[0].startswith("fe80:") and sources[1].startswith(_PREFIX)
    world.fact("ipv6-source-matches-scope", holds, seen="と".join(sources))


def _uses_temporary(stage: _Stage, setting: int) -> tuple[bool, str]:
    """Return whether pc1 takes a temporary address as its source, and the source."""
    stage.pc1.sysctl(f"net.ipv6.conf.eth0.use_tempaddr={setting}")
    _send_ra(stage)
    wanted = "temporary" if setting else _PREFIX
    text = _settled(stage, wanted, "scope global")
    (source,) = _sources(stage, stage.pc1, f"{_PREFIX}:ff:fe00:2")
    return re.search(rf"{source}/\d+ scope global temporary", text) is not None, source


def _temporary(stage: _Stage) -> None:
    world = stage.world
    world.section("temporary", "一時アドレスを使う")
    world.say("use_tempaddrを2にして、もう一度RAを受け取ります。")
    holds, _ = _uses_temporary(stage, 2)
    world.fact("temporary-is-preferred", holds, seen="送信元はtemporaryの付いたアドレス")


# Controls


def control(world: World) -> None:
    """Take the causes away: the prefix, the mistakes, the missing route, the special address."""
    stage = _set_up(world, pc1="32")
    _without_neighbours(stage)
    _without_mistake(stage)
    _ordinary_addresses(stage)
    _without_source_choice(stage)
    _without_p31(stage)
    _without_ipv6_help(stage)


def _without_neighbours(stage: _Stage) -> None:
    world = stage.world
    world.section("no-neighbours", "同じスイッチでも、/32のホスト")
    world.say("pc1を/32にしてあります。直接届く相手は、別に教えたゲートウェイだけです。")
    asked = _asked(stage, _PC2)
    why = "プレフィックスに入らなければ、同じスイッチの相手でもゲートウェイに渡す"
    seen = f"尋ねたのは{asked[0]}"
    world.control("near-asks-destination", asked[0] == _PC2, why=why, seen=seen)
    world.say("/16にすると、serverも自分のプレフィックスに入ります。")
    _change_prefix(stage, stage.pc1, _PC1, 32, 16)
    asked = _asked(stage, _SERVER)
    why = "プレフィックスに入れば、遠くの宛先でも直接尋ねる"
    seen = f"尋ねたのは{asked[0]}"
    world.control("far-asks-gateway", asked[0] == _GATEWAY, why=why, seen=seen)
    world.say("192.0.2.0/24も、直接届く範囲にしてみます。")
    world.set_up("ip -n pc1 route add 192.0.2.0/24 dev eth0")
    holds = _ping(stage, "192.0.2.1")
    why = "直接届くことにした範囲の宛先には、届かなくなる"
    world.control("wide-prefix-spares-others", holds, why=why, seen="応答なし")
    world.set_up("ip -n pc1 route del 192.0.2.0/24 dev eth0")


def _without_mistake(stage: _Stage) -> None:
    world = stage.world
    world.section("no-mistake", "プレフィックス長をそろえる")
    _change_prefix(stage, stage.pc1, _PC1, 16, 24)
    why = "/24なら、ゲートウェイに渡して届く"
    holds = _refused_by_self(stage)
    world.control("wide-prefix-asks-in-vain", holds, why=why, seen="応答あり")
    why = "/24なら、返事をゲートウェイに渡せる"
    holds = _server_unanswered(stage)
    world.control("wide-prefix-cannot-answer", holds, why=why, seen="応答あり")
    ttls = _ways(stage)
    why = "両方が/24なら、行きも帰りも直接届く"
    world.control("narrow-prefix-detours", ttls == ["63", "64"], why=why, seen="・".join(ttls))
    done, sent = _fails_at_once(stage)
    why = "デフォルトルートがあれば、送り出せる"
    holds = done.has("Network is unreachable") and sent == [_PC2]
    world.control("no-route-fails-at-once", holds, why=why, seen="server宛ても出ていく")


def _ordinary_addresses(stage: _Stage) -> None:
    world = stage.world
    world.section("ordinary", "特別でないアドレスに送る")
    why = "1台宛てなら、許可は要らない"
    here = world.python(stage.pc1)
    here("import socket")
    here("sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
    answer = here(f"sender.sendto(b'hello', ('{_PC2}', 9))")
    holds = "Permission denied" in answer
    world.control("broadcast-needs-permission", holds, why=why, seen="送れる")
    why = "127で始まらない他人の宛先なら、eth0から出ていく"
    holds = _stays_inside(stage, _SERVER)
    world.control("loopback-stays-inside", holds, why=why, seen="server宛ても出ていく")


def _without_source_choice(stage: _Stage) -> None:
    world = stage.world
    world.section("fixed-source", "経路に送信元を書いておく")
    world.set_up(f"ip -n router route replace 10.0.2.0/24 dev eth1 src {_GATEWAY}")
    sources = _sources(stage, stage.router, _PC1, _SERVER)
    why = "経路に`src`があれば、それが使われる"
    holds = sources == [_GATEWAY, "10.0.2.254"]
    world.control("source-follows-route", holds, why=why, seen="と".join(sources))


def _without_p31(stage: _Stage) -> None:
    world = stage.world
    world.section("p30", "同じ2つのアドレスを、/30で使う")
    holds = _join_routers(stage, 30)
    why = "/30では、10.0.9.3はブロードキャストアドレスである"
    world.control("p31-uses-both", holds, why=why, seen="pingに断られる")


def _without_ipv6_help(stage: _Stage) -> None:
    world = stage.world
    world.section("no-help", "自動の設定を止める")
    world.say("addr_gen_modeを1にして、リンクローカルアドレスを作らせません。")
    text = _use_ipv6(stage, mode=1)
    why = "作らせなければ、付かない"
    world.control("link-local-by-itself", "fe80:" in text, why=why, seen="アドレスなし")
    _by_hand(stage)
    world.say("Aのフラグがなく、デフォルトルーターでいる秒数も0のRAを送ります。")
    world.file("ra.py", _RA, unseen=True)
    _send_ra(stage, flags="80", lifetime=0)
    world.do("ip -6 route show dev eth0", stage.pc1, until=_PREFIX, show=cut(r" expires.*"))
    text = _settled(stage)
    why = "Aのフラグがなければ、アドレスを作らない"
    world.control("ra-gives-address", _PREFIX in text, why=why, seen="fe80::だけ")
    why = "秒数が0なら、デフォルトルーターにしない"
    holds = _default_route(stage)
    world.control("ra-gives-default-route", holds, why=why, seen="経路なし")
    _without_global(stage)


def _by_hand(stage: _Stage) -> None:
    world = stage.world
    world.say("リンクローカルアドレスを、手で付けます。")
    for number, host in ((1, stage.pc1), (2, stage.pc2), (254, stage.router)):
        suffix = f"{number:x}"
        world.set_up(f"ip -n {host.name} addr add fe80::ff:fe00:{suffix}/64 dev eth0")
    _settled(stage, "fe80")
    _check_others(stage)
    here = world.python(stage.pc1)
    here("import socket")
    here("sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)")
    refused = here("sender.connect(('fe80::ff:fe00:2', 9, 0, socket.if_nametoindex('eth0')))")
    why = "インターフェースを示せば、断られない"
    holds = "Invalid argument" in refused
    world.control("link-local-needs-zone", holds, why=why, seen="つながる")


def _without_global(stage: _Stage) -> None:
    world = stage.world
    sources = _sources(stage, stage.pc1, "fe80::ff:fe00:2", f"{_PREFIX}:ff:fe00:2")
    holds = sources[0].startswith("fe80:") and sources[1].startswith(_PREFIX)
    why = "グローバルなアドレスがなければ、合うものを選べない"
    world.control("ipv6-source-matches-scope", holds, why=why, seen="と".join(sources))
    world.say("最後に、アドレスを作らせる設定に戻し、use_tempaddrは1にします。")
    stage.pc1.sysctl("net.ipv6.conf.eth0.addr_gen_mode=0")
    holds, _ = _uses_temporary(stage, 1)
    why = "1なら、一時アドレスを作っても優先しない"
    world.control("temporary-is-preferred", holds, why=why, seen="送信元は一時でないほう")
