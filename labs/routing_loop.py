"""Two routers that send a packet back to each other: how long it circles, and what ends it."""

from __future__ import annotations

from dataclasses import dataclass

from labs.harness import Done, Lab, Namespace, World, feature, only, program

LAB = Lab(
    title="ルーティングループとTTL",
    chapter="network/routing",
    shows="デフォルトルートを互いに向け合った2台のルーターの間で、パケットが回り続ける様子を見ます。",
    topology=(
        ("client", "eth0", "192.0.2.1/24"),
        ("client", "eth0", "2001:db8:1::1/64"),
        ("r1", "eth0", "192.0.2.254/24"),
        ("r1", "eth0", "2001:db8:1::254/64"),
        ("r1", "eth1", "10.0.12.1/24"),
        ("r1", "eth1", "2001:db8:12::1/64"),
        ("r2", "eth0", "10.0.12.2/24"),
        ("r2", "eth0", "2001:db8:12::2/64"),
        ("r2", "lo", "203.0.113.9/32"),
        ("r2", "lo", "2001:db8:99::9/128"),
    ),
    facts={
        "ttl-falls-by-one": "ループするパケットのTTLは、ルーターを通るたびに1ずつ減る",
        "passes-are-ttl-minus-one": "TTL 64のパケットは、2台の間の回線を63回通る",
        "time-exceeded-comes-back": "TTLが尽きると、尽きたルーターからTime Exceededが返る",
        "traceroute-alternates": "tracerouteには、2台のアドレスが交互に並ぶ",
        "counters-multiply": "ループする宛先へ10個送ると、回線のカウンターは630以上増える",
        "unreachable-route-ends-it": (
            "unreachable経路を足すと、ループは止まり、Host Unreachableが返る"
        ),
        "blackhole-route-is-silent": "blackhole経路を足すと、ループは止まり、何も返らない",
        "strict-check-drops-the-return": (
            "逆向きの経路を厳格に調べるルーターは、戻ってきたパケットを捨てる"
        ),
        "hop-limit-does-the-same": "IPv6でも、Hop Limit 64のパケットは63回通ってから捨てられる",
    },
    needs=(
        program("ip", "iproute2"),
        program("ping", "iputils-ping"),
        program("tcpdump"),
        program("traceroute"),
        feature("network-namespace"),
    ),
    seconds=9,
)

_LOST, _LOST6 = "203.0.113.9", "2001:db8:99::9"
_LAN = "203.0.113.0/24"
_PING = f"ping -c 1 -W 1 -t 64 {_LOST}"
_PING6 = f"ping -6 -c 1 -W 1 -t 64 {_LOST6}"
_TTL = r"(?:ttl|hlim) (\d+),"
_TELLING = only(r"(ttl|hlim) (63|62|61|2|1),")
_V6 = (
    "net.ipv6.conf.{all,default}.disable_ipv6=0 net.ipv6.conf.{all,default}.accept_dad=0"
    " net.ipv6.conf.{all,default}.accept_ra=0"
)
_EACH = "net.ipv4.conf.{all,default}"
_ALONE = f"{_EACH}.rp_filter=0 {_EACH}.send_redirects=0"


@dataclass(frozen=True)
class _Stage:
    """One host and the two routers behind it."""

    world: World
    client: Namespace
    r1: Namespace
    r2: Namespace


def _set_up(world: World) -> _Stage:
    world.section("hosts", "2台のルーターを、向かい合わせにつなぐ")
    world.say("clientはr1に、r1はr2につながっています。")
    network = world.network
    client, r1, r2 = network.namespace("client"), network.router("r1"), network.router("r2")
    for host in (client, r1, r2):
        world.ask(f"sysctl -qw {_V6} {_ALONE}", host)
    network.cable((client, "eth0", "192.0.2.1/24"), (r1, "eth0", "192.0.2.254/24"))
    network.cable((r1, "eth1", "10.0.12.1/24"), (r2, "eth0", "10.0.12.2/24"))
    world.say("ルーターが知らない宛先は、r1はr2に、r2はr1に渡します。")
    client.route("default", "192.0.2.254")
    r1.route("default", "10.0.12.2")
    r2.route("default", "10.0.12.1")
    return _Stage(world, client, r1, r2)


def run(world: World) -> None:
    """Send packets into the loop, count their passes, and end the loop in three ways."""
    stage = _set_up(world)
    _circle(stage)
    _end_it(stage)
    _strict(stage)
    _trace(stage)
    _counters(stage)
    _hop_limit(stage)


def _passes(stage: _Stage, ping: str, last: str) -> tuple[list[int], Done]:
    """Ping once; return the TTLs of the request's passes between the routers, and the answer."""
    world = stage.world
    what = "'icmp[0] == 8'" if "-6" not in ping else "'icmp6 and ip6[40] == 128'"
    capture = stage.r1.capture("eth1", what, options="-nn -v -t")
    answer = world.do(ping, stage.client, code=None, show=only(r"^From|bytes from|received"))
    capture.wait_for(rf"(ttl|hlim) {last},")
    shown = world.stop(capture, show=_TELLING)
    return [int(ttl) for ttl in shown.all(_TTL)], answer


def _circle(stage: _Stage) -> None:
    world = stage.world
    world.section("circle", "1つのパケットが回る回数を数える")
    world.say(
        f"どちらのルーターにも経路のない{_LOST}へ、TTL 64で1つだけ送ります。"
        "採取するのは2台の間の回線です（途中の行は省きます）。"
    )
    ttls, answer = _passes(stage, _PING, "1")
    seen = f"TTLは{ttls[0]}から{ttls[-1]}まで"
    world.fact("ttl-falls-by-one", _falls(ttls), seen=seen)
    world.fact("passes-are-ttl-minus-one", len(ttls) == 63, seen=f"{len(ttls)}回")
    world.fact("time-exceeded-comes-back", _exceeded(answer), seen="r2からTime Exceeded")


def _falls(ttls: list[int]) -> bool:
    """Return whether the packet passed again and again, each time with one less."""
    return len(ttls) > 1 and ttls == list(range(ttls[0], ttls[0] - len(ttls), -1))


def _exceeded(answer: Done) -> bool:
    return answer.has("^From 10.0.12.2 .*Time to live exceeded")


def _ended(ttls: list[int]) -> bool:
    """Return whether the packet went to r2 once and never came back."""
    return ttls == [63]


def _end_it(stage: _Stage) -> None:
    world = stage.world
    world.section("end-it", "捨てるための経路で、ループを止める")
    world.say("r2に、捨てて知らせる経路を足します。デフォルトルートより長く一致します。")
    world.do(f"ip route add unreachable {_LAN}", stage.r2)
    ttls, answer = _passes(stage, _PING, "63")
    holds = _ended(ttls) and answer.has("^From 10.0.12.2 .*Destination Host Unreachable")
    seen = f"通ったのは{len(ttls)}回、r2からHost Unreachable"
    world.fact("unreachable-route-ends-it", holds, seen=seen)
    world.say("黙って捨てる経路に替えます。")
    world.do(f"ip route replace blackhole {_LAN}", stage.r2)
    ttls, answer = _passes(stage, _PING, "63")
    holds = _ended(ttls) and not answer.has("^From")
    seen = f"通ったのは{len(ttls)}回、返事なし"
    world.fact("blackhole-route-is-silent", holds, seen=seen)
    world.do(f"ip route del blackhole {_LAN}", stage.r2)


def _dropped_on_return(stage: _Stage, check: int) -> tuple[bool, list[int]]:
    stage.r1.sysctl(f"net.ipv4.conf.eth1.rp_filter={check}")
    ttls, _ = _passes(stage, _PING, "62" if check == 1 else "1")
    return ttls == [63, 62], ttls


def _strict(stage: _Stage) -> None:
    world = stage.world
    world.section("strict", "r1で、逆向きの経路を厳格に調べる")
    world.say(
        "送信元は192.0.2.1なので、r1から見た逆向きの経路はeth0です。eth1から戻れば合いません。"
    )
    holds, ttls = _dropped_on_return(stage, 1)
    seen = f"通ったのは{len(ttls)}回（r2への1回と、戻りの1回）"
    world.fact("strict-check-drops-the-return", holds, seen=seen)
    stage.r1.sysctl("net.ipv4.conf.eth1.rp_filter=0")


def _alternates(stage: _Stage) -> tuple[bool, list[str]]:
    command = f"traceroute -n -q 1 -m 8 {_LOST}"
    hops = stage.world.do(command, stage.client).all(r"^ *\d+ +(\S+)")
    return hops == ["192.0.2.254", "10.0.12.2"] * 4, hops


def _trace(stage: _Stage) -> None:
    world = stage.world
    world.section("traceroute", "tracerouteで見る")
    world.say("8段までに限って調べます。")
    holds, hops = _alternates(stage)
    world.fact("traceroute-alternates", holds, seen=f"{hops[0]}と{hops[1]}が4回ずつ")


def _frames(stage: _Stage) -> int:
    """Read how many packets r1 sent to r2 and got back."""
    files = "/sys/class/net/eth1/statistics/{tx,rx}_packets"
    return sum(int(line) for line in stage.world.do(f"cat {files}", stage.r1).lines)


def _multiplied(stage: _Stage) -> int:
    before = _frames(stage)
    command = f"ping -q -c 10 -i 0.2 -W 1 -t 64 {_LOST}"
    stage.world.do(command, stage.client, code=None, show=only("transmitted"))
    return _frames(stage) - before


def _counters(stage: _Stage) -> None:
    world = stage.world
    world.section("counters", "インターフェースのカウンターで見る")
    world.say(
        "r1がr2へ送った数と、受け取った数です。10個送る前と後で比べます。"
        "Time Exceededは頻度が制限されるので、エラーの数は10より少なくなることがあります。"
    )
    more = _multiplied(stage)
    world.fact("counters-multiply", more >= 630, seen=f"{more}増えた")


def _add_v6(stage: _Stage) -> None:
    world = stage.world
    world.say("IPv6のアドレスと、向かい合わせのデフォルトルートを足します。")
    for router in (stage.r1, stage.r2):
        router.sysctl("net.ipv6.conf.all.forwarding=1")
    stage.client.address("eth0", "2001:db8:1::1/64")
    stage.r1.address("eth0", "2001:db8:1::254/64")
    stage.r1.address("eth1", "2001:db8:12::1/64")
    stage.r2.address("eth0", "2001:db8:12::2/64")
    stage.client.route("default", "2001:db8:1::254")
    stage.r1.route("default", "2001:db8:12::2")
    stage.r2.route("default", "2001:db8:12::1")


def _runs_out(stage: _Stage, last: str) -> tuple[bool, int]:
    ttls, answer = _passes(stage, _PING6, last)
    exceeded = answer.has("^From 2001:db8:12::2.*Time exceeded: Hop limit")
    return len(ttls) == 63 and _falls(ttls) and exceeded, len(ttls)


def _hop_limit(stage: _Stage) -> None:
    world = stage.world
    world.section("hop-limit", "IPv6で同じことをする")
    _add_v6(stage)
    holds, count = _runs_out(stage, "1")
    world.fact("hop-limit-does-the-same", holds, seen=f"{count}回、r2からHop limit")


def control(world: World) -> None:
    """Take the causes away: a destination that r2 has, no special route, no strict check."""
    stage = _set_up(world)
    _without_special_route(stage)
    _without_strict_check(stage)
    _with_the_destination(stage)


def _without_special_route(stage: _Stage) -> None:
    world = stage.world
    world.section("no-special-route", "捨てる経路を置かない")
    ttls, answer = _passes(stage, _PING, "1")
    why = "捨てる経路がなければ、r2で終わらずに回る"
    seen = f"{len(ttls)}回"
    world.control("unreachable-route-ends-it", _ended(ttls), why=why, seen=seen)
    why = "黙って捨てる経路がなければ、Time Exceededが返る"
    silent = not answer.has("^From")
    world.control("blackhole-route-is-silent", silent, why=why, seen="r2からTime Exceeded")


def _without_strict_check(stage: _Stage) -> None:
    world = stage.world
    world.section("loose", "逆向きの経路を、緩く調べる")
    holds, ttls = _dropped_on_return(stage, 2)
    why = "どこかに経路があればよい緩い検査では、捨てられない"
    seen = f"{len(ttls)}回"
    world.control("strict-check-drops-the-return", holds, why=why, seen=seen)


def _with_the_destination(stage: _Stage) -> None:
    world = stage.world
    world.section("right-route", "r2に、宛先への正しい経路がある")
    stage.r2.address("lo", f"{_LOST}/32")
    ttls, answer = _passes(stage, _PING, "63")
    why = "宛先を知るルーターに着けば、回らない"
    seen = f"TTL {ttls[0]}の{len(ttls)}回だけ"
    world.control("ttl-falls-by-one", _falls(ttls), why=why, seen=seen)
    world.control("passes-are-ttl-minus-one", len(ttls) == 63, why=why, seen=seen)
    why = "TTLが尽きる前に届き、返事が来る"
    world.control("time-exceeded-comes-back", _exceeded(answer), why=why, seen="応答あり")
    holds, hops = _alternates(stage)
    why = "2段目で宛先に着く"
    world.control("traceroute-alternates", holds, why=why, seen="、".join(hops))
    more = _multiplied(stage)
    why = "増えるのは、要求と応答の分だけである"
    world.control("counters-multiply", more >= 630, why=why, seen=f"{more}増えた")
    _add_v6(stage)
    stage.r2.address("lo", f"{_LOST6}/128")
    holds, count = _runs_out(stage, "63")
    why = "IPv6でも、宛先を知るルーターに着けば回らない"
    world.control("hop-limit-does-the-same", holds, why=why, seen=f"{count}回")
