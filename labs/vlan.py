"""Where a VLAN ends, what a trunk adds to a frame, and how a router joins two VLANs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from labs.harness import Done, Lab, Namespace, World, cut, feature, head, program

LAB = Lab(
    title="VLANの範囲とトランクのタグ",
    chapter="network/vlan",
    shows="2台のスイッチに4台のPCをつなぎ、フレームの届く範囲とタグを見ます。",
    topology=(
        ("pc1", "eth0", "10.0.10.1/24"),
        ("pc2", "eth0", "10.0.10.2/24"),
        ("pc3", "eth0", "10.0.20.3/24"),
        ("pc3", "eth0", "10.0.10.3/24"),
        ("pc4", "eth0", "10.0.20.4/24"),
        ("router", "eth0.10", "10.0.10.254/24"),
        ("router", "eth0.20", "10.0.20.254/24"),
    ),
    facts={
        "trunk-needs-no-router": "トランクでつないだスイッチ間では、ルーターなしで同じVLANに届く",
        "trunk-frames-carry-their-vlan": "トランクを流れるフレームには、VLAN番号の入ったタグが付く",
        "access-frames-are-untagged": "アクセスポートから端末へ出るフレームには、タグがない",
        "tag-adds-four-bytes": "タグが付くと、フレームは4バイト長くなる",
        "other-vlan-is-unreachable": "同じスイッチの同じサブネットでも、VLANが違えば届かない",
        "broadcast-stays-in-its-vlan": "ブロードキャストは、同じVLANの端末だけに届く",
        "trunk-carries-allowed-vlans-only": "トランクは、許していないVLANのフレームを通さない",
        "native-vlan-is-untagged": "ネイティブVLANのフレームは、タグなしでトランクを流れる",
        "native-mismatch-leaks": "トランクの両端でネイティブVLANが違うと、別のVLANに届いてしまう",
        "router-joins-vlans": "ルーターを通せば別のVLANに届き、TTLが1減る",
        "stick-changes-the-tag": "ルーターに入る前と出た後では、フレームのタグの番号が違う",
    },
    needs=(
        program("ip", "iproute2"),
        program("ping", "iputils-ping"),
        program("tcpdump"),
        program("ovs-vsctl", "openvswitch-switch"),
        program("ovs-vswitchd", "openvswitch-switch"),
        feature("network-namespace"),
    ),
    seconds=20,
    stable=True,
)

_FRAMES = "icmp or (vlan and icmp)"
_FRAME = re.compile(
    r"length (?P<length>\d+): (?:vlan (?P<vlan>\d+), )?.*?"
    r"(?P<source>[\d.]+) > (?P<target>[\d.]+): ICMP echo (?P<kind>request|reply)"
)
_NO_NOISE = cut(r"(?<=p 0, )ethertype IPv4 \(0x0800\), ", r"id \d+, ")
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


@dataclass(frozen=True)
class _Stage:
    """Two switches in one namespace, and the four computers."""

    world: World
    switches: Namespace
    pc1: Namespace
    pc2: Namespace
    pc3: Namespace
    pc4: Namespace


def _set_up(world: World) -> _Stage:
    world.section("switches", "2台のスイッチと4台のPCをつなぐ")
    world.say("スイッチはOpen vSwitchで作ります。名前空間switchesに、sw1とsw2の2台を置きます。")
    network = world.network
    switches = network.namespace("switches")
    pcs = [network.namespace(f"pc{number}") for number in range(1, 5)]
    addresses = ("10.0.10.1/24", "10.0.10.2/24", "10.0.20.3/24", "10.0.20.4/24")
    for number, (pc, address) in enumerate(zip(pcs, addresses, strict=True), 1):
        network.cable((pc, "eth0", address), (switches, f"p{number}", ""))
    world.say("sw1とsw2は、t1とt2を両端とするケーブル1本でつなぎます。")
    network.cable((switches, "t1", ""), (switches, "t2", ""))
    _start_switches(world, switches)
    _configure(world, switches)
    return _Stage(world, switches, *pcs)


def _start_switches(world: World, switches: Namespace) -> None:
    """Run Open vSwitch wholly in user space: neither the kernel's module nor root is needed."""
    world.ask(f"mkdir -p /run/openvswitch && ovsdb-tool create switches.db {_SCHEMA}")
    socket = "--remote=punix:/run/openvswitch/db.sock"
    world.start_unseen(f"ovsdb-server --no-chdir {socket} switches.db", switches)
    world.ask("ovs-vsctl --no-wait init", until=r"\A\Z")
    world.start_unseen(
        "ovs-vswitchd --pidfile --no-chdir --disable-system --enable-dummy", switches
    )
    for name in ("sw1", "sw2"):
        world.ask(f"ovs-vsctl add-br {name} -- set bridge {name} datapath_type=dummy")


def _configure(world: World, switches: Namespace) -> None:
    world.say("Open vSwitchは、スイッチsw1とsw2を用意して起動済みです。")
    world.say("`tag`を与えたポートがアクセスポート、`trunks`を与えたポートがトランクです。")
    world.do("ovs-vsctl add-port sw1 p1 tag=10 -- add-port sw1 p3 tag=20", switches)
    world.do("ovs-vsctl add-port sw2 p2 tag=10 -- add-port sw2 p4 tag=20", switches)
    world.do("ovs-vsctl add-port sw1 t1 trunks=10,20 -- add-port sw2 t2 trunks=10,20", switches)


def _change(stage: _Stage, command: str) -> None:
    """Configure the switches; return when no forwarding from before is remembered any more."""
    stage.world.do(f"ovs-vsctl {command}", stage.switches)
    stage.world.ask("ovs-appctl revalidator/wait")


def run(world: World) -> None:
    """Follow frames over a trunk, look for the edge of a VLAN, then let a router join two."""
    stage = _set_up(world)
    _trunk(stage)
    _edge(stage)
    _broadcast(stage)
    _allowed(stage)
    _native(stage)
    _router(stage)


def _ping(world: World, source: Namespace, target: str) -> Done:
    """Ping until an answer comes; the transcript shows one ping."""
    return world.do(f"ping -c 1 -W 5 {target}", source, until=" 1 received", show=head(2))


def _no_answer(world: World, source: Namespace, target: str) -> Done:
    return world.do(f"ping -q -c 1 -W 1 {target} | grep received", source)


def _answered(done: Done) -> bool:
    return done.has(" 1 received")


def _frames(lines: list[str], source: str = "") -> list[re.Match[str]]:
    """Return the echo requests and replies, or only the requests of one source."""
    found = [frame for line in lines if (frame := _FRAME.search(line))]
    return [x for x in found if not source or (x["kind"], x["source"]) == ("request", source)]


def _listen(
    stage: _Stage, where: Namespace, interface: str, count: int, action: Callable[[], object]
) -> list[str]:
    """Capture at least `count` echo frames while something is done, and show them."""
    capture = where.capture(interface, f"'{_FRAMES}'", options="-nn -e -t")
    action()
    stage.world.until(lambda: len(_frames(capture.lines)) >= count, f"{count}個のフレーム")
    return stage.world.stop(capture, show=_NO_NOISE).lines


def _vlans(frames: list[re.Match[str]]) -> list[str]:
    return [frame["vlan"] or "なし" for frame in frames]


def _trunk(stage: _Stage) -> None:
    world = stage.world
    world.section("trunk", "トランクを流れるタグを見る")
    world.say("sw1のpc1から、sw2のpc2へpingします。どちらもVLAN 10です。")
    done = _ping(world, stage.pc1, "10.0.10.2")
    holds = _answered(done) and done.has("ttl=64")
    world.fact("trunk-needs-no-router", holds, seen="ttl=64（1台もルーターを通っていない）")
    world.say("同じpingをVLAN 10と20で1回ずつ行い、2台の間のケーブルで採取します。")
    trunk = _frames(_listen(stage, stage.switches, "t1", 4, lambda: _ping_both(stage)))
    seen = "タグは" + "、".join(_vlans(trunk))
    holds = _vlans(trunk) == ["10", "10", "20", "20"]
    world.fact("trunk-frames-carry-their-vlan", holds, seen=seen)
    _access(stage, int(trunk[0]["length"]))


def _ping_both(stage: _Stage) -> None:
    stage.world.do("ping -q -c 1 -W 5 10.0.10.2 | grep received", stage.pc1)
    stage.world.do("ping -q -c 1 -W 5 10.0.20.4 | grep received", stage.pc3)


def _at_pc2(stage: _Stage, ping: str, count: int) -> re.Match[str]:
    """Return what arrives first at pc2 when pc1 pings."""
    ping = f"ping -q -c 1 {ping} 2>&1 | grep received"
    lines = _listen(stage, stage.pc2, "eth0", count, lambda: stage.world.do(ping, stage.pc1))
    return _frames(lines, "10.0.10.1")[0]


def _access(stage: _Stage, on_trunk: int) -> None:
    world = stage.world
    world.say("次は、pc2の側で採取します。")
    frame = _at_pc2(stage, "-W 5 10.0.10.2", 2)
    world.fact(
        "access-frames-are-untagged", not frame["vlan"], seen=f"タグは{frame['vlan'] or 'なし'}"
    )
    length = int(frame["length"])
    seen = f"トランクで{on_trunk}バイト、pc2で{length}バイト"
    world.fact("tag-adds-four-bytes", on_trunk - length == 4, seen=seen)


def _edge(stage: _Stage) -> None:
    world = stage.world
    world.section("edge", "同じスイッチの別のVLANへpingする")
    world.say("VLAN 20のpc3に、pc1と同じサブネットのアドレスも与えてから試します。")
    stage.pc3.address("eth0", "10.0.10.3/24")
    done = _no_answer(world, stage.pc1, "10.0.10.3")
    world.fact("other-vlan-is-unreachable", not _answered(done), seen="応答なし")


def _who_hears(stage: _Stage) -> tuple[str, str]:
    """Broadcast in VLAN 10, then in VLAN 20; return what pc2 (10) and pc3 (20) heard."""
    world = stage.world
    captures = [
        pc.capture("eth0", "'icmp and ether broadcast'", options="-nn -t")
        for pc in (stage.pc2, stage.pc3)
    ]
    world.do("ping -b -q -c 1 -W 0.2 10.0.10.255 2>&1 | grep received", stage.pc1)
    world.do("ping -b -q -c 1 -W 0.2 10.0.20.255 2>&1 | grep received", stage.pc4)
    captures[1].wait_for(r"10\.0\.20\.255")
    world.say("pc2とpc3に届いたものを、順に並べます。")
    at_pc2, at_pc3 = (world.stop(capture, show=_NO_NOISE).text for capture in captures)
    return at_pc2, at_pc3


def _stays_inside(heard: tuple[str, str]) -> bool:
    at_pc2, at_pc3 = heard
    own = "10.0.10.255" in at_pc2 and "10.0.20.255" in at_pc3
    return own and "10.0.20.255" not in at_pc2 and "10.0.10.255" not in at_pc3


def _broadcast(stage: _Stage) -> None:
    world = stage.world
    world.section("broadcast", "ブロードキャストの届く範囲を見る")
    world.say("pc1からVLAN 10へ、pc4からVLAN 20へ、ブロードキャストを1つずつ送ります。")
    world.say("採取は、VLAN 10のpc2とVLAN 20のpc3で行います。返事は誰もしません。")
    holds = _stays_inside(_who_hears(stage))
    seen = "pc2にはVLAN 10のもの、pc3にはVLAN 20のものだけ"
    world.fact("broadcast-stays-in-its-vlan", holds, seen=seen)


def _allow(stage: _Stage, vlans: str) -> None:
    _change(stage, f"set port t1 trunks={vlans}")


def _allowed(stage: _Stage) -> None:
    world = stage.world
    world.section("allowed-vlans", "トランクからVLAN 20を外す")
    world.say("sw1の側で、トランクに許すVLANを10だけにします。")
    _allow(stage, "10")
    _ping(world, stage.pc1, "10.0.10.2")
    done = _no_answer(world, stage.pc3, "10.0.20.4")
    seen = "VLAN 10は応答あり、VLAN 20は応答なし"
    world.fact("trunk-carries-allowed-vlans-only", not _answered(done), seen=seen)
    world.say("元に戻します。")
    _allow(stage, "10,20")


def _set_native(stage: _Stage, one: int, other: int, mode: str = "untagged") -> None:
    for port, vlan in (("t1", one), ("t2", other)):
        _change(stage, f"set port {port} vlan_mode=native-{mode} tag={vlan}")


def _native(stage: _Stage) -> None:
    world = stage.world
    world.section("native-vlan", "ネイティブVLANを決める")
    world.say("トランクの両端で、ネイティブVLANを20にします。")
    _set_native(stage, 20, 20)
    vlans = _vlans(_frames(_listen(stage, stage.switches, "t1", 4, lambda: _ping_both(stage))))
    seen = "VLAN 10のタグは" + "、".join(vlans[:2]) + "、VLAN 20のタグは" + "、".join(vlans[2:])
    world.fact("native-vlan-is-untagged", vlans == ["10", "10", "なし", "なし"], seen=seen)
    world.say("t2の側だけを、VLAN 10と書き間違えます。VLAN 20のpc3からpingします。")
    _change(stage, "set port t2 tag=10")
    done = _ping(world, stage.pc3, "10.0.10.2")
    world.fact("native-mismatch-leaks", _answered(done), seen="VLAN 10のpc2が応答")
    world.say("ネイティブVLANをなくして、元に戻します。")
    _change(stage, "clear port t1 vlan_mode tag -- clear port t2 vlan_mode tag")


def _plug_router_in(stage: _Stage) -> Namespace:
    """Cable t3 (at sw2) to t4; behind t4 a third Open vSwitch gives each VLAN an interface."""
    world = stage.world
    router = world.network.router("router")
    world.network.cable((stage.switches, "t3", ""), (stage.switches, "t4", ""))
    _change(stage, "add-port sw2 t3 trunks=10,20")
    world.say(
        "ルーターの側では、VLANごとのインターフェースeth0.10とeth0.20に分けます。"
        "ふつうは`ip link add link eth0 name eth0.10 type vlan id 10`のように作ります。"
        "ここでは、その機能がないカーネルでも動くように、Open vSwitchで分けています。"
    )
    world.ask("ovs-vsctl add-br rt -- set bridge rt datapath_type=dummy -- add-port rt t4")
    for vlan in (10, 20):
        veth = f"ip link add r{vlan} netns switches type veth peer name eth0.{vlan} netns router"
        world.ask(f"{veth} && ip -n switches link set r{vlan} up")
        world.ask(f"ovs-vsctl add-port rt r{vlan} tag={vlan}")
        router.address(f"eth0.{vlan}", f"10.0.{vlan}.254/24")
        router.up(f"eth0.{vlan}")
    stage.pc1.route("default", "10.0.10.254")
    stage.pc4.route("default", "10.0.20.254")
    return router


def _router(stage: _Stage) -> None:
    world = stage.world
    world.section("router-on-a-stick", "1本のトランクでルーターをつなぐ")
    world.say("sw2とルーターを、両方のVLANを通すケーブルt3・t4でつなぎます。")
    _plug_router_in(stage)
    world.say("VLAN 10のpc1から、VLAN 20のpc4へpingします。")
    done = _ping(world, stage.pc1, "10.0.20.4")
    holds = done.has("ttl=63") and _answered(done)
    world.fact("router-joins-vlans", holds, seen=done.find(r"ttl=\d+")[0])
    world.say("もう一度pingして、ルーターへのケーブルで採取します。")
    tags = _tags_on_the_stick(stage, "10.0.20.4", 4)
    seen = "pc1からのパケットのタグは" + "、".join(tags)
    world.fact("stick-changes-the-tag", tags == ["10", "20"], seen=seen)


def _tags_on_the_stick(stage: _Stage, target: str, count: int) -> list[str]:
    """Return the tags of pc1's request on the router's cable, in order."""
    ping = f"ping -q -c 1 -W 5 {target} | grep received"
    world = stage.world
    lines = _listen(stage, stage.switches, "t3", count, lambda: world.do(ping, stage.pc1))
    return _vlans(_frames(lines, "10.0.10.1"))


def control(world: World) -> None:
    """Take the causes away: other ports' modes, the trunk, the filter, the router."""
    stage = _set_up(world)
    _pc2_on_a_trunk_port(stage)
    _native_tagged(stage)
    _everything_allowed(stage)
    _one_vlan(stage)
    _router_that_does_not_forward(stage)
    _trunk_as_access_ports(stage)


def _pc2_on_a_trunk_port(stage: _Stage) -> None:
    world = stage.world
    world.section("trunk-port", "pc2のポートをトランクにする")
    _change(stage, "clear port p2 tag -- set port p2 trunks=10,20")
    world.say("タグ付きのARPには応答できないので、ARPの要らないブロードキャストを送ります。")
    frame = _at_pc2(stage, "-W 0.2 -b 10.0.10.255", 1)
    why = "トランクのポートにつないだ端末には、タグの付いたフレームが来る"
    seen = f"タグは{frame['vlan']}"
    world.control("access-frames-are-untagged", not frame["vlan"], why=why, seen=seen)
    world.say("元に戻します。")
    _change(stage, "set port p2 tag=10 -- clear port p2 trunks")


def _native_tagged(stage: _Stage) -> None:
    world = stage.world
    world.section("native-tagged", "ネイティブVLANにもタグを付ける、両端をそろえる")
    _set_native(stage, 20, 20, mode="tagged")
    vlans = _vlans(_frames(_listen(stage, stage.switches, "t1", 4, lambda: _ping_both(stage))))
    why = "ネイティブVLANにもタグを付ける設定なら、すべてのフレームにタグが付く"
    holds = vlans == ["10", "10", "なし", "なし"]
    world.control("native-vlan-is-untagged", holds, why=why, seen="タグは" + "、".join(vlans))
    _set_native(stage, 20, 20)
    stage.pc3.address("eth0", "10.0.10.3/24")
    done = _no_answer(world, stage.pc3, "10.0.10.2")
    why = "両端のネイティブVLANが同じなら、別のVLANには届かない"
    world.control("native-mismatch-leaks", _answered(done), why=why, seen="応答なし")
    _change(stage, "clear port t1 vlan_mode tag -- clear port t2 vlan_mode tag")


def _everything_allowed(stage: _Stage) -> None:
    world = stage.world
    world.section("allowed", "トランクにVLAN 20も許したままにする")
    done = _ping(world, stage.pc3, "10.0.20.4")
    why = "許してあれば、VLAN 20のフレームもトランクを通る"
    world.control("trunk-carries-allowed-vlans-only", not _answered(done), why=why, seen="応答あり")


def _one_vlan(stage: _Stage) -> None:
    world = stage.world
    world.section("one-vlan", "pc3とpc4もVLAN 10に入れる")
    _change(stage, "set port p3 tag=10 -- set port p4 tag=10")
    done = _ping(world, stage.pc1, "10.0.10.3")
    why = "同じVLANに入れれば届く"
    world.control("other-vlan-is-unreachable", not _answered(done), why=why, seen="応答あり")
    why = "同じVLANなら、どの端末にも届く"
    seen = "pc2にもpc3にも、2つとも届いた"
    holds = _stays_inside(_who_hears(stage))
    world.control("broadcast-stays-in-its-vlan", holds, why=why, seen=seen)
    _change(stage, "set port p3 tag=20 -- set port p4 tag=20")


def _router_that_does_not_forward(stage: _Stage) -> None:
    world = stage.world
    world.section("without-forwarding", "転送しないルーターをつなぐ")
    router = _plug_router_in(stage)
    tags = _tags_on_the_stick(stage, "10.0.10.254", 2)
    why = "ルーター自身あてのように同じVLANの中で済めば、タグは変わらない"
    seen = "タグは" + "、".join(tags)
    world.control("stick-changes-the-tag", tags == ["10", "20"], why=why, seen=seen)
    router.sysctl("net.ipv4.ip_forward=0")
    done = _no_answer(world, stage.pc1, "10.0.20.4")
    why = "つないだだけで転送しなければ、VLANの間は届かない"
    world.control("router-joins-vlans", _answered(done), why=why, seen="応答なし")


def _trunk_as_access_ports(stage: _Stage) -> None:
    world = stage.world
    world.section("access-trunk", "トランクの両端をアクセスポートにする")
    _change(stage, "set port t1 tag=10 -- set port t2 tag=10")
    _change(stage, "clear port t1 trunks -- clear port t2 trunks")
    ping = "ping -q -c 1 -W 5 10.0.10.2 | grep received"
    lines = _listen(stage, stage.switches, "t1", 2, lambda: world.do(ping, stage.pc1))
    frame, vlans = _frames(lines)[0], _vlans(_frames(lines))
    why = "アクセスポートどうしをつなぐと、VLAN 10のフレームもタグなしで流れる"
    seen = "タグは" + "、".join(vlans)
    world.control("trunk-frames-carry-their-vlan", vlans[0] == "10", why=why, seen=seen)
    length = int(frame["length"])
    why = "タグがなければ、長さは端末が送ったときのまま"
    world.control("tag-adds-four-bytes", length == 102, why=why, seen=f"{length}バイト")
    world.set_up("ip -n switches link set t1 down")
    done = _no_answer(world, stage.pc1, "10.0.10.2")
    why = "スイッチの間のケーブルを抜けば、届かない"
    world.control("trunk-needs-no-router", _answered(done), why=why, seen="応答なし")
