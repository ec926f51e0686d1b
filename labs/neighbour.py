"""How an IPv4 or IPv6 address becomes a MAC address, and what a router changes in a frame."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from labs.harness import Done, Lab, Namespace, Session, World, cut, feature, only, program

LAB = Lab(
    title="ARPと近隣探索",
    chapter="network/ethernet-arp",
    shows="スイッチに3台のPCとルーターをつなぎ、MACアドレスの調べ方と覚え方を見ます。",
    topology=(
        ("pc1", "eth0", "10.0.1.1/24"),
        ("pc2", "eth0", "10.0.1.2/24"),
        ("pc3", "eth0", "10.0.1.3/24"),
        ("router", "eth0", "10.0.1.254/24"),
        ("router", "eth1", "10.0.2.254/24"),
        ("server", "eth0", "10.0.2.10/24"),
        ("pc2", "eth0", "10.0.1.100/24"),
        ("pc3", "eth0", "10.0.1.100/24"),
        ("pc3", "eth0", "10.0.1.2/24"),
        ("pc1", "eth0", "10.0.1.1/16"),
        ("pc1", "eth0", "2001:db8::1/64"),
        ("pc2", "eth0", "2001:db8::2/64"),
        ("pc3", "eth0", "2001:db8::2/64"),
        ("pc3", "eth0", "2001:db8::3/64"),
    ),
    facts={
        "request-is-broadcast": "MACを知らない相手へのARP要求は、ブロードキャストで送られる",
        "reply-is-unicast": "ARPの応答は、尋ねたホストだけにユニキャストで送られる",
        "target-learns-asker": "尋ねられたホストは、尋ねたホストのMACも覚える",
        "far-destination-asks-for-gateway": "別のサブネット宛てでは、ルーターのMACだけを尋ねる",
        "router-rewrites-macs": "ルーターを越えると、送信元と宛先のMACが両方とも替わる",
        "router-keeps-addresses": "ルーターを越えても、送信元と宛先のIPアドレスは替わらない",
        "no-answer-becomes-failed": "ARPに応答がなければFAILEDになり、No route to hostで失敗する",
        "silent-neighbour-becomes-failed": "覚えた相手が黙ると、ユニキャストの確認を3回して忘れる",
        "tcp-confirms-without-arp": "TCPのACKが戻っていれば、ARPを送らずにREACHABLEに戻る",
        "garp-updates-entry": "Gratuitous ARPは、既にある記録を書き換える",
        "garp-creates-no-entry": "Gratuitous ARPだけでは、新しい記録は作られない",
        "arping-finds-owner": "arping -Dは、アドレスが使われていれば終了コード1で終わる",
        "both-owners-answer": "同じアドレスの2台は、どちらもARPに応答する",
        "duplicate-breaks-connection": "重複した2台目が名乗ると、続いていたTCPが切れる",
        "ns-is-multicast": "IPv6の要請は、solicited-nodeマルチキャストで送られる",
        "ipv6-refuses-duplicate": "IPv6では、重複したアドレスはdadfailedになり使えない",
    },
    needs=(
        program("ip", "iproute2"),
        program("ping", "iputils-ping"),
        program("arping", "iputils-arping"),
        program("tcpdump"),
        program("nft", "nftables"),
        program("python3"),
        feature("network-namespace"),
        feature("bridge"),
        feature("nft-nat"),
    ),
    seconds=60,
    limit=180,
)

_ALL = "ff:ff:ff:ff:ff:ff"
_MAC = r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
_ARP = re.compile(
    rf"(?P<source>{_MAC}) > (?P<target>{_MAC}), .*?"
    r"(?P<kind>Request who-has|Reply) (?P<address>[\d.]+)"
)
_ECHO = re.compile(
    rf"(?P<source>{_MAC}) > (?P<target>{_MAC}), .*?ttl (?P<ttl>\d+),.*?\n"
    r"\s+(?P<sender>[\d.]+) > (?P<receiver>[\d.]+): ICMP echo request"
)
_NS = re.compile(rf"(?P<source>{_MAC}) > (?P<target>{_MAC}), .*neighbor solicitation")
_ETHERTYPE = r"(?<=, )ethertype (ARP|IPv6) \(0x\w+\), "
_SHORT = cut(_ETHERTYPE)
_HEADERS = cut(r"tos 0x0, ", r"(?<=ttl \d\d, ).*?(?=\n)", r"(?<=echo request).*")
_ONLY_ARP = "-nn -e -t"


@dataclass(frozen=True)
class _Stage:
    """A LAN of three computers, a router, and a server behind it."""

    world: World
    router: Namespace
    server: Namespace
    pc1: Namespace
    pc2: Namespace
    pc3: Namespace


def _set_up(world: World) -> _Stage:
    world.section("hosts", "スイッチにPCとルーターをつなぐ")
    world.say("名前空間switchのブリッジが、スイッチの役をします。")
    network = world.network
    switch, router = network.namespace("switch"), network.router("router")
    pcs = [network.namespace(f"pc{number}") for number in range(1, 4)]
    server = network.namespace("server")
    for number, pc in enumerate(pcs, 1):
        network.cable((pc, "eth0", f"10.0.1.{number}/24"), (switch, f"p{number}", ""))
    network.cable((router, "eth0", "10.0.1.254/24"), (switch, "p4", ""))
    network.bridge(switch, "br0", "p1", "p2", "p3", "p4")
    network.cable((router, "eth1", "10.0.2.254/24"), (server, "eth0", "10.0.2.10/24"))
    pcs[0].route("default", "10.0.1.254")
    server.route("default", "10.0.2.254")
    stage = _Stage(world, router, server, *pcs)
    world.say("それぞれのMACアドレスです（記録では、現れた順の番号に置き換えています）。")
    for host in (*pcs, router, server):
        world.do("ip -br link show type veth", host, show=cut(r" <.*>"))
    return stage


def run(world: World) -> None:
    """Ask for MAC addresses, let entries age, move and duplicate addresses, then use IPv6."""
    stage = _set_up(world)
    _resolve(stage)
    _far(stage)
    _hop(stage)
    _nobody(stage)
    _silence(stage)
    _confirm(stage)
    _move(stage)
    _duplicate(stage)
    _ipv6(stage)


# Reading


def _mac(stage: _Stage, host: Namespace, interface: str = "eth0") -> str:
    return stage.world.ask(f"ip -br link show {interface}", host).find(_MAC)[0]


def _arps(lines: list[str], source: str = "", kind: str = "") -> list[re.Match[str]]:
    """Return the ARP messages, or only those from one MAC address, or of one kind."""
    found = [arp for line in lines if (arp := _ARP.search(line))]
    return [x for x in found if source in x["source"] and x["kind"].startswith(kind)]


def _entry(stage: _Stage, address: str, until: str = "", host: Namespace | None = None) -> Done:
    return stage.world.do(f"ip neigh show {address}", host or stage.pc1, until=until)


def _ping(stage: _Stage, target: str, source: Namespace | None = None) -> Done:
    command = f"ping -q -c 1 -W 1 {target} | grep received"
    return stage.world.do(command, source or stage.pc1)


def _answered(done: Done) -> bool:
    return done.has(" 1 received")


def _listen(
    stage: _Stage,
    host: Namespace,
    action: Callable[[], object],
    enough: Callable[[list[str]], bool],
) -> list[str]:
    """Capture ARP at a host while something is done and until it is enough; show it."""
    capture = host.capture("eth0", "arp", options=_ONLY_ARP)
    action()
    stage.world.until(lambda: enough(capture.lines), "ARPが採取される")
    return stage.world.stop(capture, show=_SHORT).lines


# Asking


def _resolve(stage: _Stage) -> None:
    world = stage.world
    world.section("resolve", "同じサブネットの相手のMACを尋ねる")
    world.say("pc1からpc2へpingし、pc1でARPを採取します。pc3でも、同じ間に採取します。")
    bystander = stage.pc3.capture("eth0", "arp", options=_ONLY_ARP)
    lines = _listen(stage, stage.pc1, lambda: _ping(stage, "10.0.1.2"), lambda x: len(x) > 1)
    request, reply = _arps(lines)[:2]
    holds = request["target"] == _ALL
    world.fact("request-is-broadcast", holds, seen=f"要求の宛先は「{request['target']}」")
    world.say("pc3に届いたのは、ブロードキャストの要求だけです。")
    world.until(lambda: _arps(bystander.lines), "pc3に要求が届く")
    heard = [x["kind"] for x in _arps(world.stop(bystander, show=_SHORT).lines)]
    holds = reply["target"] == _mac(stage, stage.pc1) and heard == ["Request who-has"]
    world.fact("reply-is-unicast", holds, seen=f"応答の宛先はpc1（{reply['target']}）")
    world.say("3台の近隣テーブルを見ます。pc3は、要求を聞いても何も覚えません。")
    _entry(stage, "10.0.1.2", until="REACHABLE")
    done = _entry(stage, "10.0.1.1", host=stage.pc2)
    _entry(stage, "10.0.1.1", host=stage.pc3)
    mac = _mac(stage, stage.pc1)
    world.fact("target-learns-asker", done.has(mac), seen=f"pc2の記録に「{mac}」")


def _asked(lines: list[str], source: str) -> list[str]:
    return [x["address"] for x in _arps(lines, source, "Request")]


def _far(stage: _Stage) -> None:
    world = stage.world
    world.section("gateway", "別のサブネットへ送る")
    world.say("pc1から、ルーターの先のserverへpingします。尋ねる相手に注目します。")
    lines = _listen(stage, stage.pc1, lambda: _ping(stage, "10.0.2.10"), lambda x: len(x) > 1)
    asked = _asked(lines, _mac(stage, stage.pc1))
    seen = f"尋ねたのは{'と'.join(asked)}"
    world.fact("far-destination-asks-for-gateway", asked == ["10.0.1.254"], seen=seen)
    world.do("ip neigh show", stage.pc1)


def _both_ends(stage: _Stage, far: Namespace, target: str) -> list[re.Match[str]]:
    """Ping and return the request as it left pc1 and as it came to the other end."""
    world = stage.world
    what, options = "'icmp[icmptype] = icmp-echo'", "-nn -e -t -v"
    captures = [host.capture("eth0", what, options) for host in (stage.pc1, far)]
    _ping(stage, target)
    for capture in captures:
        capture.wait_for(r"echo request")
    world.say(f"pc1を出たとき、{far.name}に着いたときの順です。")
    texts = [world.stop(capture, show=_HEADERS).text for capture in captures]
    return [found for text in texts if (found := _ECHO.search(text))]


def _hop(stage: _Stage) -> None:
    world = stage.world
    world.section("hop", "同じパケットをルーターの両側で見る")
    near, far = _both_ends(stage, stage.server, "10.0.2.10")
    seen = f"TTLは{near['ttl']}から{far['ttl']}"
    changed = near["source"] != far["source"] and near["target"] != far["target"]
    world.fact("router-rewrites-macs", changed, seen=f"MACは両方とも別の値、{seen}")
    holds, addresses = _same_addresses(near, far)
    world.fact("router-keeps-addresses", holds, seen=f"両側で{addresses}")


def _same_addresses(near: re.Match[str], far: re.Match[str]) -> tuple[bool, str]:
    one, other = ((x["sender"], x["receiver"]) for x in (near, far))
    return one == other, " → ".join(other)


# States


def _sockets(stage: _Stage, *hosts: Namespace) -> list[Session]:
    sessions = [stage.world.python(host) for host in hosts]
    for session in sessions:
        session("import os, socket, time")
    return sessions


def _nobody(stage: _Stage) -> None:
    world = stage.world
    world.section("nobody", "いない相手につなぐ")
    world.say("10.0.1.99のホストはいません。TCPでつなぎ、待つ間の状態を見ます。")
    (here,) = _sockets(stage, stage.pc1)
    capture = stage.pc1.capture("eth0", "'arp host 10.0.1.99'", options=_ONLY_ARP)
    here.begin("error = socket.socket().connect_ex(('10.0.1.99', 80))")
    _entry(stage, "10.0.1.99", until="INCOMPLETE")
    here.finish()
    error = here("os.strerror(error)")
    done = _entry(stage, "10.0.1.99")
    count = len(_arps(world.stop(capture, show=_SHORT).lines))
    holds = done.has("FAILED") and "No route to host" in error and count == 3
    seen = f"要求{count}回でFAILED、{error}"
    world.fact("no-answer-becomes-failed", holds, seen=seen)


def _grow_stale(stage: _Stage) -> None:
    """Learn pc2 anew, let the entry age, and leave two seconds to see DELAY in."""
    world = stage.world
    change = "ip ntable change name arp_cache dev eth0"
    world.say("待たずに済むよう、有効な時間の基準を30秒から2秒にし、pc2を覚え直します。")
    world.do(f"{change} base_reachable 2000 delay_probe 500", stage.pc1)
    world.do("ip neigh flush dev eth0", stage.pc1)
    _ping(stage, "10.0.1.2")
    world.say("使わずに待つとSTALEになります。基準を戻し、DELAYにいる時間は2秒にします。")
    _entry(stage, "10.0.1.2", until="STALE")
    world.do(f"{change} base_reachable 30000 delay_probe 2000", stage.pc1)


def _send(stage: _Stage) -> None:
    stage.world.do("echo hello > /dev/udp/10.0.1.2/9", stage.pc1)


def _silence(stage: _Stage) -> None:
    world = stage.world
    world.section("states", "覚えた相手がいなくなる")
    _grow_stale(stage)
    world.say("pc2のケーブルを抜き、UDPを1つ送ります。状態の移り変わりを追います。")
    world.set_up("ip -n pc2 link set eth0 down")
    lines, done = _probe(stage)
    mac = _mac(stage, stage.pc2)
    targets = [x["target"] for x in _arps(lines, _mac(stage, stage.pc1))]
    seen = f"pc2のMAC宛ての確認{targets.count(mac)}回でFAILED"
    holds = done.has("FAILED") and targets.count(mac) == 3
    world.fact("silent-neighbour-becomes-failed", holds, seen=seen)
    world.say("ケーブルを戻します。")
    world.set_up("ip -n pc2 link set eth0 up")


def _probe(stage: _Stage) -> tuple[list[str], Done]:
    """Send to a silent neighbour and follow the entry to its end."""
    capture = stage.pc1.capture("eth0", "arp", options=_ONLY_ARP)
    _send(stage)
    _entry(stage, "10.0.1.2", until="DELAY")
    _entry(stage, "10.0.1.2", until="PROBE")
    done = _entry(stage, "10.0.1.2", until="FAILED")
    return stage.world.stop(capture, show=_SHORT).lines, done


def _traffic(stage: _Stage, kind: str) -> list[str]:
    """Let pc1 send to pc2 for three seconds from STALE; return what it asked meanwhile."""
    world = stage.world
    here, there = _sockets(stage, stage.pc1, stage.pc2)
    family = f"socket.AF_INET, socket.{kind}"
    there(f"listener = socket.socket({family})")
    there("listener.bind(('10.0.1.2', 8080))")
    if kind == "SOCK_STREAM":
        there("listener.listen()")
    _grow_stale(stage)
    capture = stage.pc1.capture("eth0", "arp", options=_ONLY_ARP)
    here(f"sender = socket.socket({family})")
    here("sender.connect(('10.0.1.2', 8080))")
    here.begin("for _ in range(40): time.sleep(0.1 * (sender.send(b'.') > 0))")
    _entry(stage, "10.0.1.2", until="DELAY")
    _entry(stage, "10.0.1.2", until="REACHABLE")
    here.finish()
    return _asked(world.stop(capture, show=_SHORT).lines, _mac(stage, stage.pc1))


def _confirm(stage: _Stage) -> None:
    world = stage.world
    world.section("confirm", "TCPで話し続ける")
    world.say("STALEになってから、TCPで0.1秒ごとに1バイトずつ送ります。pc1が出すARPを数えます。")
    asked = _traffic(stage, "SOCK_STREAM")
    seen = f"DELAYからREACHABLEへ、pc1の要求は{len(asked)}回"
    world.fact("tcp-confirms-without-arp", not asked, seen=seen)


# Moving and duplicating


def _announce(stage: _Stage, host: Namespace, address: str) -> None:
    """Send a gratuitous ARP and return when pc1 got it."""
    world = stage.world
    capture = stage.pc1.capture("eth0", "arp", options=_ONLY_ARP)
    world.do(f"arping -U -c 1 -I eth0 {address}", host, show=only("ARPING"))
    told = _mac(stage, host)
    world.until(lambda: _asked(capture.lines, told), "pc1に知らせが届く")
    world.stop(capture, show=_SHORT)


def _move_address(stage: _Stage) -> str:
    """Move 10.0.1.100 from pc2 to pc3; return pc1's entry."""
    world = stage.world
    stage.pc2.address("eth0", "10.0.1.100/24")
    _ping(stage, "10.0.1.100")
    _entry(stage, "10.0.1.100")
    world.say("10.0.1.100を、pc2からpc3へ移します。")
    world.set_up("ip -n pc2 addr del 10.0.1.100/24 dev eth0")
    stage.pc3.address("eth0", "10.0.1.100/24")
    _ping(stage, "10.0.1.100")
    return _entry(stage, "10.0.1.100").text


def _move(stage: _Stage) -> None:
    world = stage.world
    world.section("move", "アドレスを別のホストへ移す")
    world.say("pc2に、サービス用のアドレス10.0.1.100を足し、pc1に覚えさせます。")
    before = _move_address(stage)
    world.say("pc1はまだpc2のMACに送るので、届きません。pc3からGratuitous ARPを送ります。")
    _announce(stage, stage.pc3, "10.0.1.100")
    after = _entry(stage, "10.0.1.100").text
    _ping(stage, "10.0.1.100")
    macs = [_mac(stage, host) for host in (stage.pc2, stage.pc3)]
    holds = macs[0] in before and macs[1] in after
    seen = f"「{macs[0]}」から「{macs[1]}」に"
    world.fact("garp-updates-entry", holds, seen=seen)
    world.say("今度は、pc1の記録を消してから、同じものを送ります。")
    world.do("ip neigh flush dev eth0", stage.pc1)
    done = _announce_to_nobody(stage)
    world.fact("garp-creates-no-entry", not done.lines, seen="記録は作られない")


def _announce_to_nobody(stage: _Stage) -> Done:
    _announce(stage, stage.pc3, "10.0.1.100")
    return _entry(stage, "10.0.1.100")


def _probe_address(stage: _Stage, address: str) -> Done:
    command = f"arping -D -c 2 -I eth0 {address}; echo 終了コード $?"
    return stage.world.do(command, stage.pc3, show=cut(r"(?<=reply from 10\.0\.1\.2) .*"))


def _owners(stage: _Stage) -> list[str]:
    done = stage.world.do(
        "arping -b -c 4 -w 3 -I eth0 10.0.1.2 | sed 's/\\[.*]/\\L&/'", stage.pc1, code=None
    )
    return sorted({mac.lower() for mac in done.all(r"(?i)reply from \S+ \[" + _MAC) if mac})


def _duplicate(stage: _Stage) -> None:
    world = stage.world
    world.section("duplicate", "同じアドレスを2台に付ける")
    world.say("pc2の使う10.0.1.2を、pc3で使ってよいか調べます。")
    done = _probe_address(stage, "10.0.1.2")
    world.fact("arping-finds-owner", done.has("終了コード 1"), seen=done.lines[-1])
    world.say("それでも付けます。IPv4では、カーネルは何も言わずに受け入れます。")
    stage.pc3.address("eth0", "10.0.1.2/24")
    owners = _owners(stage)
    world.fact("both-owners-answer", len(owners) == 2, seen=f"{len(owners)}つのMACから応答")
    world.section("broken", "重複で、続いていた接続が切れる")
    world.say("いったんpc3のアドレスを外し、pc1からpc2へTCPでつなぎます。")
    world.set_up("ip -n pc3 addr del 10.0.1.2/24 dev eth0")
    here, _there = _connect(stage)
    world.say("つないだまま、pc3が同じアドレスを付けて名乗ります。")
    stage.pc3.address("eth0", "10.0.1.2/24")
    _announce(stage, stage.pc3, "10.0.1.2")
    _entry(stage, "10.0.1.2")
    answer = _talk(here)
    holds = "Connection reset by peer" in answer
    world.fact("duplicate-breaks-connection", holds, seen=answer)
    world.set_up("ip -n pc3 addr del 10.0.1.2/24 dev eth0")


def _connect(stage: _Stage) -> tuple[Session, Session]:
    here, there = _sockets(stage, stage.pc1, stage.pc2)
    stage.world.do("ip neigh flush dev eth0", stage.pc1)
    there("listener = socket.create_server(('10.0.1.2', 8081))")
    here("connection = socket.create_connection(('10.0.1.2', 8081))")
    there("peer, address = listener.accept()")
    return here, there


def _talk(here: Session) -> str:
    """Send a byte and return what became of the connection one second later."""
    here("sent = connection.send(b'x')")
    here("time.sleep(1)")
    here("error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)")
    return here("os.strerror(error)")


# IPv6


def _use_ipv6(stage: _Stage) -> None:
    world = stage.world
    world.say("IPv6を有効にし、アドレスを付けます。確認が済むと`tentative`が消えます。")
    for number, host in enumerate((stage.pc1, stage.pc2, stage.pc3), 1):
        host.sysctl("net.ipv6.conf.all.disable_ipv6=0")
        if number < 3:
            host.address("eth0", f"2001:db8::{number}/64")
    for host in (stage.pc1, stage.pc2):
        _settled(stage, host)


def _settled(stage: _Stage, host: Namespace) -> Done:
    """Wait until duplicate address detection has ended, well or badly."""
    stage.world.ask("ip -6 addr show dev eth0", host, until=r"(?s)\A(?!.*(?<!dadfailed )tentative)")
    return stage.world.do("ip -6 addr show dev eth0 scope global", host, show=only("inet6"))


def _solicit(stage: _Stage, action: Callable[[], object]) -> str:
    """Return where pc1's neighbour solicitation for pc2 went."""
    what = "'icmp6 and (ip6[40] = 135 or ip6[40] = 136)'"
    capture = stage.pc1.capture("eth0", what, options=_ONLY_ARP)
    own = _mac(stage, stage.pc1)
    action()

    def found() -> re.Match[str] | None:
        for line in capture.lines:
            if (ask := _NS.search(line)) and ask["source"] == own:
                return ask
        return None

    target = stage.world.until(found, "近隣要請が採取される")["target"]
    capture.wait_for("neighbor advertisement")
    stage.world.stop(capture, show=cut(_ETHERTYPE, r"fe80::[0-9a-f:]+"))
    return target


def _ipv6(stage: _Stage) -> None:
    world = stage.world
    world.section("ipv6", "IPv6の近隣探索を見る")
    _use_ipv6(stage)
    world.say("pc1からpc2へpingし、近隣要請と近隣広告を採取します。")
    target = _solicit(stage, lambda: _ping(stage, "2001:db8::2"))
    seen = f"要請の宛先は「{target}」"
    world.fact("ns-is-multicast", target == "33:33:ff:00:00:02", seen=seen)
    world.section("ipv6-duplicate", "IPv6で同じアドレスを付ける")
    world.say("pc3に、pc2と同じ2001:db8::2を付けます。")
    stage.pc3.address("eth0", "2001:db8::2/64")
    done = _settled(stage, stage.pc3)
    (there,) = _sockets(stage, stage.pc3)
    there("sender = socket.socket(socket.AF_INET6)")
    there("sender.bind(('2001:db8::2', 0))", raises="OSError")
    holds = done.has("dadfailed")
    world.fact("ipv6-refuses-duplicate", holds, seen="dadfailed")


def control(world: World) -> None:
    """Take the causes away: unknown MACs, subnets, the router, silence, duplicates."""
    stage = _set_up(world)
    _known_neighbour(stage)
    _not_asked(stage)
    _without_router(stage)
    _masquerade(stage)
    _somebody(stage)
    _confirm_by_udp(stage)
    _accept(stage)
    _other_address(stage)
    _ipv6_control(stage)
    _wrong_mask(stage)


def _known_neighbour(stage: _Stage) -> None:
    world = stage.world
    world.section("known", "MACを知っている相手を確かめる")
    _grow_stale(stage)
    own = _mac(stage, stage.pc1)
    lines = _listen(
        stage, stage.pc1, lambda: _send(stage), lambda x: bool(_arps(x, own, "Request"))
    )
    target = _arps(lines, own, "Request")[0]["target"]
    why = "MACを知っている相手への確認は、ユニキャストになる"
    seen = f"要求の宛先は「{target}」"
    world.control("request-is-broadcast", target == _ALL, why=why, seen=seen)
    done = _entry(stage, "10.0.1.2", until="REACHABLE|STALE")
    why = "相手が確認に答えれば、FAILEDにならない"
    seen = "応答があり、記録が残る"
    world.control("silent-neighbour-becomes-failed", done.has("FAILED"), why=why, seen=seen)


def _not_asked(stage: _Stage) -> None:
    world = stage.world
    world.section("not-asked", "尋ねられていないpc3を見る")
    done = _entry(stage, "10.0.1.1", host=stage.pc3)
    why = "尋ねられていないホストは、要求を聞いても覚えない"
    holds = done.has(_mac(stage, stage.pc1))
    world.control("target-learns-asker", holds, why=why, seen="pc3に記録なし")


def _without_router(stage: _Stage) -> None:
    world = stage.world
    world.section("switch", "ルーターを越えない相手へ送る")
    near, far = _both_ends(stage, stage.pc2, "10.0.1.2")
    changed = near["source"] != far["source"] and near["target"] != far["target"]
    why = "スイッチを通るだけなら、MACもTTLもそのまま"
    seen = f"MACは同じ、TTLは{near['ttl']}と{far['ttl']}"
    world.control("router-rewrites-macs", changed, why=why, seen=seen)


def _masquerade(stage: _Stage) -> None:
    world = stage.world
    world.section("nat", "ルーターでNATをする")
    world.do("nft add table ip nat", stage.router)
    hook = "{ type nat hook postrouting priority 100; }"
    world.do(f"nft add chain ip nat post '{hook}'", stage.router)
    world.do("nft add rule ip nat post oifname eth1 masquerade", stage.router)
    near, far = _both_ends(stage, stage.server, "10.0.2.10")
    holds, addresses = _same_addresses(near, far)
    why = "NATをすれば、送信元のIPアドレスが替わる"
    world.control("router-keeps-addresses", holds, why=why, seen=f"serverでは{addresses}")


def _somebody(stage: _Stage) -> None:
    world = stage.world
    world.section("somebody", "いる相手の、閉じたポートにつなぐ")
    (here,) = _sockets(stage, stage.pc1)
    here("error = socket.socket().connect_ex(('10.0.1.2', 80))")
    error = here("os.strerror(error)")
    why = "相手がARPに応答すれば、RSTが返るところまで進む"
    holds = "No route to host" in error
    world.control("no-answer-becomes-failed", holds, why=why, seen=error)


def _confirm_by_udp(stage: _Stage) -> None:
    world = stage.world
    world.section("udp", "UDPで送り続ける")
    asked = _traffic(stage, "SOCK_DGRAM")
    why = "ACKの戻らないUDPでは、届いているか分からず、ARPで確かめる"
    seen = f"pc1の要求は{len(asked)}回"
    world.control("tcp-confirms-without-arp", not asked, why=why, seen=seen)


def _accept(stage: _Stage) -> None:
    world = stage.world
    world.section("permanent", "記録を固定する、知らせを受け入れる")
    world.say("10.0.1.100の記録を、pc2のMACで固定（PERMANENT）してから移します。")
    mac = _mac(stage, stage.pc2)
    world.do(f"ip neigh replace 10.0.1.100 lladdr {mac} dev eth0 nud permanent", stage.pc1)
    _move_address(stage)
    _announce(stage, stage.pc3, "10.0.1.100")
    done = _entry(stage, "10.0.1.100")
    why = "PERMANENTの記録は、Gratuitous ARPでは替わらない"
    holds = done.has(_mac(stage, stage.pc3))
    world.control("garp-updates-entry", holds, why=why, seen="pc2のMACのまま")
    world.say("固定を消し、pc1がGratuitous ARPから記録を作るように設定します。")
    world.do("ip neigh del 10.0.1.100 dev eth0", stage.pc1)
    stage.pc1.sysctl("net.ipv4.conf.eth0.arp_accept=1")
    done = _announce_to_nobody(stage)
    why = "arp_accept=1なら、知らせだけで記録が作られる"
    world.control("garp-creates-no-entry", not done.lines, why=why, seen="記録が作られる")
    stage.pc1.sysctl("net.ipv4.conf.eth0.arp_accept=0")


def _other_address(stage: _Stage) -> None:
    world = stage.world
    world.section("unique", "重複しないアドレスを使う")
    done = _probe_address(stage, "10.0.1.77")
    why = "誰も使っていなければ、応答がなく0で終わる"
    world.control("arping-finds-owner", done.has("終了コード 1"), why=why, seen=done.lines[-1])
    owners = _owners(stage)
    why = "持ち主が1台なら、応答するMACも1つ"
    seen = f"{len(owners)}つのMACから応答"
    world.control("both-owners-answer", len(owners) == 2, why=why, seen=seen)
    here, _there = _connect(stage)
    _announce(stage, stage.pc3, "10.0.1.3")
    answer = _talk(here)
    why = "別のアドレスを名乗るだけなら、接続は切れない"
    holds = "reset" in answer
    world.control("duplicate-breaks-connection", holds, why=why, seen=answer)


def _ipv6_control(stage: _Stage) -> None:
    world = stage.world
    world.section("ipv6", "IPv6で、知っている相手と、重複しないアドレス")
    _use_ipv6(stage)
    mac = _mac(stage, stage.pc2)
    world.say("pc2のMACをSTALEの記録として与え、UDPを1つ送ります。")
    world.do("ip ntable change name ndisc_cache dev eth0 delay_probe 1000", stage.pc1)
    world.do(f"ip neigh add 2001:db8::2 lladdr {mac} dev eth0 nud stale", stage.pc1)
    target = _solicit(stage, lambda: world.do("echo hello > /dev/udp/2001:db8::2/9", stage.pc1))
    why = "MACを知っている相手への確認は、IPv6でもユニキャストになる"
    seen = f"要請の宛先は「{target}」"
    world.control("ns-is-multicast", target == "33:33:ff:00:00:02", why=why, seen=seen)
    stage.pc3.address("eth0", "2001:db8::3/64")
    done = _settled(stage, stage.pc3)
    why = "誰も使っていないアドレスなら使える"
    seen = "dadfailedなし"
    world.control("ipv6-refuses-duplicate", done.has("dadfailed"), why=why, seen=seen)


def _wrong_mask(stage: _Stage) -> None:
    world = stage.world
    world.section("mask", "サブネットマスクを間違える")
    world.say("pc1のアドレスを、/24ではなく/16にします。")
    world.set_up("ip -n pc1 addr flush dev eth0")
    stage.pc1.address("eth0", "10.0.1.1/16")
    own = _mac(stage, stage.pc1)
    lines = _listen(
        stage, stage.pc1, lambda: _ping(stage, "10.0.2.10"), lambda x: bool(_asked(x, own))
    )
    asked = _asked(lines, own)[:1]
    why = "同じサブネットだと思えば、ルーターではなく相手を直接尋ねる"
    seen = f"尋ねたのは{asked[0]}"
    world.control("far-destination-asks-for-gateway", asked == ["10.0.1.254"], why=why, seen=seen)
