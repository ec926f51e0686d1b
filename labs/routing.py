"""Which route wins, what a static route does not notice, and how routers agree on another one."""

from __future__ import annotations

from dataclasses import dataclass

from labs.harness import Done, Lab, Namespace, World, feature, head, only, program

LAB = Lab(
    title="静的ルーティングと動的ルーティング",
    chapter="network/routing",
    shows="3つの拠点をつなぎ、選ばれる経路と、回線が切れたときの動きを見ます。",
    topology=(
        ("tokyo", "lo", "192.0.2.1/24"),
        ("tokyo", "eth0", "10.0.12.1/24"),
        ("tokyo", "eth1", "10.0.13.1/24"),
        ("osaka", "lo", "198.51.100.1/24"),
        ("osaka", "eth0", "10.0.12.2/24"),
        ("osaka", "eth1", "10.0.23.2/24"),
        ("osaka", "lo", "198.51.200.1/24"),
        ("nagoya", "eth0", "10.0.13.3/24"),
        ("nagoya", "eth1", "10.0.23.3/24"),
    ),
    facts={
        "longest-match-wins": "メトリックが大きくても、宛先に最も長く一致する経路が選ばれる",
        "smaller-metric-wins": "プレフィックスが同じなら、メトリックの小さい経路が選ばれる",
        "no-route-answers-net-unreachable": "ルーターは、経路のない宛先にはNet Unreachableを返す",
        "way-back-needs-a-route": "行きの経路があっても、帰りの経路がなければ返事は届かない",
        "static-route-does-not-notice": "静的経路は、回線の向こう側が切れても残り、パケットを失う",
        "backup-waits-for-link-down": "予備の静的経路は、自分のインターフェースが落ちれば使われる",
        "ospf-is-ip-protocol-89": "OSPFは、TCPもUDPも使わず、IPのプロトコル番号89で話す",
        "rip-is-udp-520": "RIPは、UDPの520番ポートで話す",
        "bgp-is-tcp-179": "BGPは、TCPの179番ポートで話す",
        "one-protocol-wins": "複数のプロトコルから学んだ経路は、優先度で選ばれた1つだけが使われる",
        "ospf-routes-around": "OSPFは、相手からのHelloが途絶えると、残りの道に切り替える",
        "as-path-lists-the-way": "BGPのAS_PATHには、宛先までに通るASの番号が並ぶ",
        "own-as-is-refused": "BGPは、AS_PATHに自分のAS番号のある経路を受け入れない",
    },
    needs=(
        program("ip", "iproute2"),
        program("ping", "iputils-ping"),
        program("tcpdump"),
        program("bird", "bird2"),
        program("birdc", "bird2"),
        feature("network-namespace"),
        feature("bridge"),
    ),
    seconds=27,
)

_LAN = "198.51.100.0/24"
_SERVER = "198.51.100.1"
_TEST = "203.0.113.0/24"
_SHOW = "birdc -s tokyo.ctl show route"
_BY_OSAKA, _BY_NAGOYA = "via 10.0.12.2", "via 10.0.13.3"

_BIRD = """\
router id {router};
log stderr all;
ipv4 table rip4;
ipv4 table bgp4;
protocol device {{ }}
protocol direct lan_rip {{ ipv4 {{ table rip4; }}; interface "lo"; }}
protocol direct lan_bgp {{ ipv4 {{ table bgp4; }}; interface "lo"; }}
protocol kernel {{
    ipv4 {{ import none; export where net ~ [{learns}]; }};
}}
protocol ospf v2 ospf1 {{
    {ospf}
    ipv4 {{ import all; export none; }};
    area 0 {{
        interface "lo" {{ stub; }};
        interface "eth*" {{ type ptp; hello 1; dead 3; }};
    }};
}}
protocol rip rip1 {{
    ipv4 {{ table rip4; import all; export all; }};
    interface "eth0" {{ metric {rip}; update time 1; timeout time 3; garbage time 3; }};
    interface "eth1" {{ update time 1; timeout time 3; garbage time 3; }};
}}
template bgp neighbour {{
    local as {own};
    direct;
    hold time 3;
    connect delay time 1;
    connect retry time 1;
    error wait time 1, 2;
    ipv4 {{ table bgp4; import all; export {export}; next hop self; }};
}}
protocol bgp bgp1 from neighbour {{ neighbor {first}; }}
protocol bgp bgp2 from neighbour {{ neighbor {second}; }}
protocol static test {{ ipv4 {{ table bgp4; }}; {static} }}
protocol pipe {{ table master4; peer table rip4; import all; export none; }}
protocol pipe {{ table master4; peer table bgp4; import all; export none; }}
"""
_ADD_TOKYO = f"filter {{ if net = {_TEST} then bgp_path.prepend(64501); accept; }}"


_USUAL = {"ospf": "", "rip": "1", "export": "all", "static": ""}
_SITES = {
    "tokyo": {
        "router": "192.0.2.1",
        "own": "64501",
        "first": "10.0.12.2 as 64502",
        "second": "10.0.13.3 as 64503",
        "rip": "5",
        "learns": _LAN,
    },
    "osaka": {
        "router": _SERVER,
        "own": "64502",
        "first": "10.0.12.1 as 64501",
        "second": "10.0.23.3 as 64503",
        "learns": "192.0.2.0/24",
    },
    "nagoya": {
        "router": "10.0.13.3",
        "own": "64503",
        "first": "10.0.13.1 as 64501",
        "second": "10.0.23.2 as 64502",
        "learns": f"192.0.2.0/24, {_LAN}",
        "export": _ADD_TOKYO,
        "static": f"route {_TEST} blackhole;",
    },
}


@dataclass(frozen=True)
class _Stage:
    """Three sites that route, and the carrier between two of them."""

    world: World
    tokyo: Namespace
    osaka: Namespace
    nagoya: Namespace


def _set_up(world: World) -> _Stage:
    world.section("sites", "3つの拠点をつなぐ")
    world.say("tokyo、osaka、nagoyaの3台は、パケットを転送するルーターです。")
    network = world.network
    tokyo, osaka, nagoya = (network.router(name) for name in ("tokyo", "osaka", "nagoya"))
    for router in (tokyo, osaka, nagoya):
        world.ask("sysctl -qw net.ipv4.conf.{all,default}.rp_filter=0", router)
    world.say("tokyoとosakaの間は、通信事業者のスイッチ（carrier）をはさんでつなぎます。")
    carrier = network.namespace("carrier")
    network.cable((tokyo, "eth0", "10.0.12.1/24"), (carrier, "p1", ""))
    network.cable((osaka, "eth0", "10.0.12.2/24"), (carrier, "p2", ""))
    network.bridge(carrier, "br0", "p1", "p2")
    world.say("nagoyaを通る回り道もあります。")
    network.cable((tokyo, "eth1", "10.0.13.1/24"), (nagoya, "eth0", "10.0.13.3/24"))
    network.cable((osaka, "eth1", "10.0.23.2/24"), (nagoya, "eth1", "10.0.23.3/24"))
    world.say("tokyoとosakaのLANの代わりに、ループバックにアドレスを与えます。")
    tokyo.address("lo", "192.0.2.1/24")
    osaka.address("lo", f"{_SERVER}/24")
    return _Stage(world, tokyo, osaka, nagoya)


def run(world: World) -> None:
    """Choose among static routes, cut a line, and do the same again with routing protocols."""
    stage = _set_up(world)
    _longest_match(stage)
    _no_route(stage)
    _way_back(stage)
    _black_hole(stage)
    _protocols(stage)
    _preference(stage)
    _fail_over(stage)
    _own_as(stage)


def _route(stage: _Stage, to: str, via: str, metric: int) -> None:
    stage.world.do(f"ip route add {to} {via} metric {metric}", stage.tokyo)


def _chosen(stage: _Stage, to: str = _SERVER) -> str:
    """Ask the kernel which way it takes."""
    return stage.world.do(f"ip route get {to}", stage.tokyo, show=head(1)).find(r"via \S+")[0]


def _longest_match(stage: _Stage) -> None:
    world = stage.world
    world.section("longest-match", "選ばれる経路を確かめる")
    world.say("広い/16をnagoyaへ、狭い/24をosakaへ向けます。メトリックは/16のほうを小さくします。")
    _route(stage, "198.51.0.0/16", _BY_NAGOYA, 1)
    _route(stage, _LAN, _BY_OSAKA, 100)
    world.say("`ip route get`は、カーネルが実際に選ぶ経路を答えます。")
    via = _chosen(stage)
    seen = f"{_SERVER}へは、メトリック100の/24（{via}）"
    world.fact("longest-match-wins", via == _BY_OSAKA, seen=seen)
    world.say("同じ/24を、もっと小さいメトリックでnagoyaへも向けます。")
    _route(stage, _LAN, _BY_NAGOYA, 50)
    via = _chosen(stage)
    seen = f"メトリック50の{via}"
    world.fact("smaller-metric-wins", via == _BY_NAGOYA, seen=seen)


def _net_unreachable(stage: _Stage) -> Done:
    return stage.world.do("ping -c 1 -W 1 198.51.200.1", stage.tokyo, code=None, show=head(2))


def _no_route(stage: _Stage) -> None:
    world = stage.world
    world.section("no-route", "経路のない宛先へ送る")
    world.say("198.51.200.1は/16に合うので、nagoyaへ渡されます。nagoyaには、合う経路がありません。")
    done = _net_unreachable(stage)
    holds = done.has("^From 10.0.13.3 .*Destination Net Unreachable")
    world.fact("no-route-answers-net-unreachable", holds, seen="nagoyaからNet Unreachable")


def _ping_lan(stage: _Stage, until: str = "") -> bool:
    """Ping from LAN to LAN; return whether there was an answer."""
    command = f"ping -q -c 1 -W 1 -I 192.0.2.1 {_SERVER} | grep received"
    return stage.world.do(command, stage.tokyo, until=until).has(" 1 received")


def _way_back(stage: _Stage) -> None:
    world = stage.world
    world.section("way-back", "帰りの経路がないと、どう見えるか")
    world.say("tokyoのLAN（192.0.2.1）からosakaのLANへpingし、osakaで採取します。")
    world.do(f"ip route del {_LAN} {_BY_NAGOYA}", stage.tokyo)
    capture = stage.osaka.capture("eth0", "icmp", options="-nn -t")
    answered = _ping_lan(stage)
    capture.wait_for("echo request")
    done = world.stop(capture)
    seen = "osakaに要求は届いたが、返事は出ていない"
    holds = done.has("echo request") and not answered
    world.fact("way-back-needs-a-route", holds, seen=seen)
    world.say("osakaに帰りの経路を与えると、返事が届きます。")
    stage.osaka.route("192.0.2.0/24", "10.0.12.1")
    _ping_lan(stage, until=" 1 received")


def _cut(stage: _Stage) -> None:
    stage.world.set_up("ip -n carrier link set p2 down")


def _lost_but_listed(stage: _Stage) -> bool:
    answered = _ping_lan(stage)
    listed = stage.world.do(f"ip route show {_LAN}", stage.tokyo).has(_BY_OSAKA)
    return listed and not answered


def _black_hole(stage: _Stage) -> None:
    world = stage.world
    world.section("black-hole", "静的経路のまま、回線の向こう側を切る")
    world.say("nagoyaを通る予備の経路を、大きいメトリックで足してから、osaka側の線を抜きます。")
    _route(stage, _LAN, _BY_NAGOYA, 200)
    _cut(stage)
    holds = _lost_but_listed(stage)
    world.fact("static-route-does-not-notice", holds, seen="経路は残り、応答はない")
    world.say("tokyoから見えるリンクは生きたままです。")
    world.do("ip -br link show eth0", stage.tokyo)
    world.say("tokyo自身のインターフェースを落とすと、それを使う経路が消えます。")
    world.set_up("ip -n tokyo link set eth0 down")
    via = _chosen(stage)
    world.fact("backup-waits-for-link-down", via == _BY_NAGOYA, seen=f"選ばれるのは{via}")


def _start_bird(stage: _Stage, **changes: str) -> None:
    """Start a routing daemon at each site and wait until every protocol has learned the LAN."""
    world = stage.world
    for site in (stage.tokyo, stage.osaka, stage.nagoya):
        values = {**_USUAL, **_SITES[site.name], **changes}
        world.file(f"{site.name}.conf", _BIRD.format(**values), unseen=True)
        world.start(f"bird -f -c {site.name}.conf -s {site.name}.ctl", site)
    for name in ("rip1", "bgp1"):
        world.ask(f"{_SHOW} for {_LAN}", until=rf"\[?{name} ")


def _protocols(stage: _Stage) -> None:
    world = stage.world
    world.section("protocols", "3つのプロトコルを動かす")
    world.say("静的経路を消して線を戻し、BIRDというソフトウェアを3台で動かします。")
    for site in (stage.tokyo, stage.osaka):
        world.do("ip route flush proto boot", site)
    world.set_up("ip -n tokyo link set eth0 up")
    world.set_up("ip -n carrier link set p2 up")
    world.say("比べるために、OSPF、RIP、BGPを一度に動かします（ふつうはどれか1つで足ります）。")
    _start_bird(stage)
    world.ask(f"{_SHOW} for {_LAN}", until="ospf1 ")
    world.say("osakaから来るパケットを、プロトコルの番号を条件にして1つずつ採取します。")
    done = _catch(stage, "ip proto 89")
    world.fact("ospf-is-ip-protocol-89", done.has("OSPFv2"), seen="OSPFv2のパケット")
    done = _catch(stage, "udp dst port 520")
    world.fact("rip-is-udp-520", done.has("RIPv2"), seen="RIPv2のパケット")
    done = _catch(stage, "tcp port 179 and tcp[tcpflags] & tcp-push != 0")
    world.fact("bgp-is-tcp-179", done.has(": BGP"), seen="BGPのメッセージ")


def _catch(stage: _Stage, what: str) -> Done:
    command = f"timeout 20 tcpdump -c 1 -nn -t -i eth0 'src 10.0.12.2 and {what}' 2>/dev/null"
    return stage.world.do(command, stage.tokyo)


def _in_kernel(stage: _Stage, until: str) -> Done:
    return stage.world.do("ip route show proto bird", stage.tokyo, until=until)


def _ospf_is_used(stage: _Stage) -> bool:
    """Return whether of the learned routes only OSPF's, the only one by osaka, is used."""
    learned = stage.world.do(f"{_SHOW} for {_LAN}", until="rip1 ")
    used = _in_kernel(stage, until=_LAN).all(rf"^{_LAN} (via \S+)")
    return learned.has(r"ospf1 .* \* ") and used == [_BY_OSAKA]


def _preference(stage: _Stage) -> None:
    world = stage.world
    world.section("preference", "使われる1つを見分ける")
    world.say("OSPFはosakaへ直接、RIPはnagoya経由と教えるように、RIPの側で回線を遠くしてあります。")
    world.say(
        "`*`の付いた経路が選ばれます。かっこの中の初めの数が優先度で、BIRDでは大きいほど先です。"
    )
    holds = _ospf_is_used(stage)
    seen = f"カーネルに入ったのは、OSPFの{_BY_OSAKA}だけ"
    world.fact("one-protocol-wins", holds, seen=seen)


def _as_path(stage: _Stage, until: str) -> str:
    command = f"{_SHOW} for {_LAN} table bgp4 primary all"
    show = only(r"^\d|via|as_path|not found")
    return stage.world.do(command, until=until, show=show).find(r"as_path: ([\d ]+)$")[1]


def _fail_over(stage: _Stage) -> None:
    world = stage.world
    world.section("fail-over", "同じ線を切り、切り替わるのを待つ")
    world.say(
        "静的経路のときと同じ線を抜きます。Helloは1秒ごとで、3秒途絶えると切れたとみなします。"
    )
    _cut(stage)
    via = _in_kernel(stage, until=_BY_NAGOYA).find(rf"^{_LAN} (via \S+)")[1]
    world.do(f"{_SHOW} for {_LAN} protocol ospf1", until=_BY_NAGOYA)
    answered = _ping_lan(stage, until=" 1 received")
    holds = via == _BY_NAGOYA and answered
    world.fact("ospf-routes-around", holds, seen=f"{via}に替わり、応答あり")
    world.say("BGPも同じ道を選び直しています。nagoyaのASは64503、osakaのASは64502です。")
    path = _as_path(stage, until=r"as_path: 64503")
    world.fact("as-path-lists-the-way", path == "64503 64502", seen=f"AS_PATHは{path}")


def _accepts_test(stage: _Stage, until: str) -> bool:
    """Return whether tokyo took nagoya's test network, which osaka took."""
    world = stage.world
    show = only(r"^\d|via|as_path|not found")
    at_osaka = f"birdc -s osaka.ctl show route for {_TEST} table bgp4 primary all"
    world.do(at_osaka, until=r"as_path: 64503", show=show)
    at_tokyo = f"{_SHOW} for {_TEST} table bgp4 primary all"
    return world.do(at_tokyo, until=until, code=None, show=show).has("as_path: 64503")


def _own_as(stage: _Stage) -> None:
    world = stage.world
    world.section("own-as", "自分のAS番号のある経路を受け取る")
    world.say(
        f"nagoyaは、{_TEST}もBGPで両方に知らせています。"
        "AS_PATHには、わざとtokyoのAS番号64501を混ぜています。"
    )
    world.say("osakaは受け入れ、tokyoは受け入れません。")
    refused = not _accepts_test(stage, until="Network not found")
    world.fact("own-as-is-refused", refused, seen="osakaの表にはあり、tokyoの表にはない")


def control(world: World) -> None:
    """Take the causes away: the narrower route, the cut, the other protocols, the other way."""
    stage = _set_up(world)
    _without_longer_match(stage)
    _with_every_route(stage)
    _without_cut(stage)
    _without_ospf(stage)
    _without_own_as(stage)
    _without_another_way(stage)


def _without_longer_match(stage: _Stage) -> None:
    world = stage.world
    world.section("no-longer-match", "長く一致する経路をなくす、メトリックを逆にする")
    _route(stage, "198.51.0.0/16", _BY_NAGOYA, 1)
    via = _chosen(stage)
    why = "/24がなければ、/16が選ばれる"
    world.control("longest-match-wins", via == _BY_OSAKA, why=why, seen=via)
    _route(stage, _LAN, _BY_OSAKA, 100)
    _route(stage, _LAN, _BY_NAGOYA, 200)
    via = _chosen(stage)
    why = "メトリックが大きければ、選ばれない"
    world.control("smaller-metric-wins", via == _BY_NAGOYA, why=why, seen=via)


def _with_every_route(stage: _Stage) -> None:
    world = stage.world
    world.section("every-route", "経路をそろえる")
    world.set_up("ip -n nagoya route add 198.51.200.0/24 via 10.0.23.2")
    stage.osaka.address("lo", "198.51.200.1/24")
    stage.osaka.route("10.0.13.0/24", "10.0.23.3")
    done = _net_unreachable(stage)
    why = "nagoyaに経路があれば、転送されて返事が来る"
    holds = done.has("Destination Net Unreachable")
    world.control("no-route-answers-net-unreachable", holds, why=why, seen="応答あり")
    stage.osaka.route("192.0.2.0/24", "10.0.12.1")
    answered = _ping_lan(stage, until=" 1 received")
    why = "帰りの経路があれば、返事が届く"
    world.control("way-back-needs-a-route", not answered, why=why, seen="応答あり")


def _without_cut(stage: _Stage) -> None:
    world = stage.world
    world.section("no-cut", "線を抜かない、インターフェースを落とさない")
    holds = _lost_but_listed(stage)
    why = "線がつながっていれば、失われない"
    world.control("static-route-does-not-notice", holds, why=why, seen="応答あり")
    via = _chosen(stage)
    why = "インターフェースが生きていれば、予備は使われない"
    world.control("backup-waits-for-link-down", via == _BY_NAGOYA, why=why, seen=via)
    for site in (stage.tokyo, stage.osaka, stage.nagoya):
        world.do("ip route flush proto boot", site)


def _without_ospf(stage: _Stage) -> None:
    world = stage.world
    world.section("without-ospf", "優先度の高いOSPFを止めておく")
    _start_bird(stage, ospf="disabled yes;", export="all")
    _in_kernel(stage, until=_BY_NAGOYA)
    holds = _ospf_is_used(stage)
    why = "OSPFがなければ、次に優先度の高いRIPの経路が使われる"
    world.control("one-protocol-wins", holds, why=why, seen=f"RIPの{_BY_NAGOYA}")


def _without_own_as(stage: _Stage) -> None:
    world = stage.world
    world.section("without-own-as", "AS_PATHに何も混ぜない、直接つながるASから学ぶ")
    accepted = _accepts_test(stage, until="as_path: 64503")
    why = "AS_PATHに自分のAS番号がなければ、受け入れる"
    world.control("own-as-is-refused", not accepted, why=why, seen="tokyoの表にある")
    path = _as_path(stage, until="as_path: 64502$")
    why = "相手のASと直接つながっていれば、並ぶのは相手の番号だけ"
    world.control("as-path-lists-the-way", path == "64503 64502", why=why, seen=f"AS_PATHは{path}")


def _without_another_way(stage: _Stage) -> None:
    world = stage.world
    world.section("no-other-way", "回り道のnagoyaを止めてから切る")
    for site in ("tokyo", "osaka"):
        world.do(f"birdc -s {site}.ctl enable ospf1")
    _in_kernel(stage, until=_BY_OSAKA)
    world.do("birdc -s nagoya.ctl down")
    _cut(stage)
    routes = _in_kernel(stage, until=r"(?s)\A(?!.*198\.51\.100)")
    holds = routes.has(_BY_NAGOYA)
    why = "回り道がなければ、経路が消えるだけである"
    world.control("ospf-routes-around", holds, why=why, seen="経路なし")
