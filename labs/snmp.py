"""What SNMP's requests and notifications look like on the wire, and what goes unanswered."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labs.harness import Done, Lab, Namespace, World, cut, feature, program

LAB = Lab(
    title="SNMPの問い合わせと通知",
    chapter="protocols/snmp",
    shows="マネージャーとエージェントの間のパケットを見て、応答のあるものとないものを分けます。",
    topology=(("manager", "eth0", "192.0.2.1/24"), ("agent", "eth0", "192.0.2.2/24")),
    facts={
        "get-is-one-round-trip": "Getは、UDPの161番への要求1つと応答1つで済む",
        "walk-asks-for-the-next": "snmpwalkは、返ってきたOIDの次をGetNextで順に尋ねる",
        "bulk-saves-round-trips": "GetBulkは、GetNextより少ない往復で同じ値を取る",
        "v1-has-no-counter64": "SNMPv1では、64ビットのカウンターを取れない",
        "wrong-community-is-silence": "コミュニティ名を間違えると、エラーでなくタイムアウトになる",
        "view-hides-the-rest": "ビューの外のOIDには、存在しないという応答が返る",
        "read-only-refuses-set": "読み取り専用のコミュニティ名では、Setを拒むエラーが返る",
        "v2c-is-in-clear": "v2cでは、コミュニティ名も値も平文で流れる",
        "v3-hides-the-value": "v3のauthPrivでは、利用者名だけが見え、値は見えない",
        "v3-tells-a-wrong-password": "v3でパスワードを間違えると、Reportが返り認証の失敗と分かる",
        "trap-is-not-answered": "Trapは162番へ送られるだけで、受け手がいなくても成功で終わる",
        "inform-needs-an-answer": "Informは、受け手の応答がなければ失敗で終わる",
    },
    needs=(
        program("ip", "iproute2"),
        program("tcpdump"),
        program("snmpd"),
        program("snmpget", "snmp"),
        program("snmptrapd"),
        feature("network-namespace"),
    ),
    seconds=6,
    stable=True,
)

_CONFIGURATION = """\
sysDescr    Lab router
psyscontact ops@example.com
sysName     agent.example.com
sysLocation Rack 12

view lab included .1.3.6.1.2.1.1
view lab excluded .1.3.6.1.2.1.1.2
view lab excluded .1.3.6.1.2.1.1.3
view lab excluded .1.3.6.1.2.1.1.8
view lab excluded .1.3.6.1.2.1.1.9
view lab included .1.3.6.1.2.1.31.1.1.1.6.1
rocommunity labro default -V lab

createUser labuser SHA-256 "authpass123" AES "privpass123"
rouser labuser authpriv
"""
_WIDER = """\
rocommunity laball
rwcommunity labrw
rouser labuser auth
"""
_RECEIVER = "authCommunity log labro\n"
_SYSTEM, _CONTACT, _NAME = "1.3.6.1.2.1.1", "1.3.6.1.2.1.1.4.0", "1.3.6.1.2.1.1.5.0"
_UPTIME, _OCTETS = "1.3.6.1.2.1.1.3.0", "1.3.6.1.2.1.31.1.1.1.6.1"
_LINK_DOWN = "1.3.6.1.6.3.1.1.5.3"
_V3 = "-v3 -u labuser -a SHA-256 -x AES -X privpass123"
# Sizes are hidden: a request's number takes one byte less now and then.
_PACKETS = cut(r"(?<=[a-z])\(\d+\)", r"(?<=PDU\])\S+", r"(?<= E=)_\S+", r"(?<=1\.3\.0=)\d+")
_TICKS = cut(r"(?<=Timeticks: ).*")
_PACKET = re.compile(r"IP \S+\.(\d+) > \S+\.(\d+): .*? (\w+)\(\d+\) +(?:N=0 M=\d+ )?([.\d]*)")


@dataclass(frozen=True)
class _Stage:
    """A manager and an agent."""

    world: World
    manager: Namespace
    agent: Namespace


def _set_up(world: World, more: str = "") -> _Stage:
    world.section("hosts", "マネージャーとエージェントをつなぐ")
    manager, agent = world.network.pair("manager", "agent")
    world.ask("mount -t tmpfs lab /var/lib/snmp")  # what the daemons keep stays in the sandbox
    world.say("labroは、systemグループの一部とカウンター1つだけが見える、読み取り専用の名前です。")
    world.file("snmpd.conf", _CONFIGURATION + more)
    daemon = world.start("snmpd -f -Lo -m '' -C -c snmpd.conf udp:192.0.2.2:161", agent)
    daemon.wait_for("NET-SNMP version")
    return _Stage(world, manager, agent)


def run(world: World) -> None:
    """Ask, walk, be refused, encrypt, and notify."""
    stage = _set_up(world)
    name = _get_a_value(stage)
    _walk(stage)
    _count(stage)
    _be_refused(stage)
    _encrypt(stage, name)
    _notify(stage)


def _watch(stage: _Stage, command: str, packets: int, code: int = 0) -> tuple[Done, Done]:
    """Run a manager's command; return what it printed and the packets."""
    world = stage.world
    capture = stage.manager.capture("eth0", "'udp port 161'", "-nn -t")
    done = world.do(command, stage.manager, code=code)
    world.until(lambda: len(capture.lines) >= packets, f"{packets}個のパケットが採取される")
    return done, world.stop(capture, show=_PACKETS)


def _v2c(program: str, oid: str, community: str = "labro") -> str:
    return f"{program} -v2c -c {community} -On 192.0.2.2 {oid}"


def _parse(packets: Done) -> list[tuple[str, ...]]:
    """Return source port, destination port, kind and first OID of each packet."""
    return [found.groups() for found in _PACKET.finditer(packets.text)]


def _kinds(packets: Done) -> list[str]:
    return [found[2] for found in _parse(packets)]


# Asking


def _is_one_round_trip(packets: Done) -> bool:
    found = _parse(packets)
    kinds, ports = [x[2] for x in found], [found[0][1], found[-1][0]]
    return kinds == ["GetRequest", "GetResponse"] and ports == ["161", "161"]


def _is_in_clear(packets: Done) -> bool:
    """Tell whether a community's name and the value can be read."""
    return packets.has(r'C="lab\w+"') and packets.has(r'="agent\.example\.com"')


def _get_a_value(stage: _Stage) -> Done:
    world = stage.world
    world.section("get", "1つの値を取る（Get）")
    world.say("sysName.0を、OIDの数字で尋ねます。")
    _, packets = _watch(stage, _v2c("snmpget", _NAME), 2)
    seen = " → ".join(_kinds(packets))
    world.fact("get-is-one-round-trip", _is_one_round_trip(packets), seen=seen)
    seen = 'C="labro"と"agent.example.com"'
    world.fact("v2c-is-in-clear", _is_in_clear(packets), seen=seen)
    return packets


def _follows(packets: Done) -> bool:
    """Tell whether each request names the OID that came back before."""
    found = _parse(packets)
    asked = [x[3] for x in found if x[2] == "GetNextRequest"][1:]
    came = [x[3] for x in found if x[2] == "GetResponse"][:-1]
    return len(asked) > 1 and asked == came


def _requests(packets: Done) -> int:
    return sum(found[1] == "161" for found in _parse(packets))


def _walk(stage: _Stage) -> None:
    world = stage.world
    world.section("walk", "まとめて取る（GetNextとGetBulk）")
    world.say("systemグループを順にたどります。範囲の外のOIDが返ったら終わりです。")
    values, packets = _watch(stage, _v2c("snmpwalk", _SYSTEM), 10)
    rounds = _requests(packets)
    world.fact("walk-asks-for-the-next", _follows(packets), seen=f"{rounds}往復")
    world.say("同じ範囲を、GetBulkで取ります。")
    same, packets = _watch(stage, _v2c("snmpbulkwalk", _SYSTEM), 2)
    holds = values.text == same.text and _requests(packets) < rounds
    seen = f"同じ{len(same.lines)}個の値に、{rounds}往復と{_requests(packets)}往復"
    world.fact("bulk-saves-round-trips", holds, seen=seen)


def _counter(stage: _Stage, version: str) -> Done:
    command = f"snmpget {version} -c labro -On 192.0.2.2 {_OCTETS}"
    return stage.world.do(command, stage.manager, code=None)


def _lacks_counter(done: Done) -> bool:
    return done.has("noSuchName") and not done.has("Counter64")


def _count(stage: _Stage) -> None:
    world = stage.world
    world.section("counter64", "64ビットのカウンターを取る")
    world.say("ループバックのifHCInOctetsを、v2cとv1で尋ねます。")
    newer, older = _counter(stage, "-v2c"), _counter(stage, "-v1")
    holds = newer.has("Counter64") and _lacks_counter(older)
    world.fact("v1-has-no-counter64", holds, seen="v2cはCounter64、v1はnoSuchName")


# Being refused


def _ask_as(stage: _Stage, community: str, packets: int, code: int = 0) -> tuple[Done, Done]:
    return _watch(stage, _v2c("snmpget -t 1 -r 0", _NAME, community), packets, code)


def _is_silence(done: Done, packets: Done) -> bool:
    return done.has("Timeout: No Response") and "GetResponse" not in _kinds(packets)


def _is_hidden(stage: _Stage, community: str) -> bool:
    done = stage.world.do(_v2c("snmpget", _UPTIME, community), stage.manager, show=_TICKS)
    return done.has("No Such Object")


def _set_is_refused(stage: _Stage, community: str) -> bool:
    command = _v2c("snmpset", f"{_CONTACT} s noc@example.com", community)
    done = stage.world.do(command, stage.manager, code=None)
    return done.has("Reason: noAccess")


def _be_refused(stage: _Stage) -> None:
    world = stage.world
    world.section("refusals", "拒まれ方を比べる")
    world.say("コミュニティ名を間違え、再送なし（`-r 0`）で1秒（`-t 1`）待ちます。")
    done, packets = _ask_as(stage, "wrong", 1, code=1)
    seen = f"要求{len(_kinds(packets))}つ、応答なし"
    world.fact("wrong-community-is-silence", _is_silence(done, packets), seen=seen)
    world.say("ビューから除いたsysUpTime.0を尋ね、読み取り専用の名前でsysContact.0を変えます。")
    hidden = _is_hidden(stage, "labro")
    world.fact("view-hides-the-rest", hidden, seen="No Such Object")
    refused = _set_is_refused(stage, "labro")
    world.fact("read-only-refuses-set", refused, seen="noAccess")


# SNMPv3


def _secure(stage: _Stage, level: str, password: str, code: int = 0) -> tuple[Done, Done]:
    command = f"snmpget {_V3} -l {level} -A {password} -On 192.0.2.2 {_NAME}"
    return _watch(stage, command, 4, code)


def _hides_the_value(packets: Done) -> bool:
    return packets.has('U="labuser"') and "agent.example.com" not in packets.text


def _is_told(done: Done, packets: Done) -> bool:
    return done.has("Authentication failure") and _kinds(packets)[-1] == "Report"


def _encrypt(stage: _Stage, in_clear: Done) -> None:
    world = stage.world
    world.section("v3", "v3で暗号化する")
    world.say("初めの1往復は、エージェントの識別子（エンジンID）を知るためのものです。")
    done, packets = _secure(stage, "authPriv", "authpass123")
    holds = done.has("agent.example.com") and _hides_the_value(packets)
    holds = holds and not _hides_the_value(in_clear)
    world.fact("v3-hides-the-value", holds, seen='U="labuser"と、読めない中身')
    world.say("パスワードを間違えます。")
    done, packets = _secure(stage, "authPriv", "wrongpass", code=1)
    seen = "Reportと、Authentication failure"
    world.fact("v3-tells-a-wrong-password", _is_told(done, packets), seen=seen)


# Notifications


def _send(stage: _Stage, kind: str, packets: int) -> tuple[Done, Done]:
    """Notify the manager of a link that went down."""
    world = stage.world
    capture = stage.manager.capture("eth0", "'udp port 162'", "-nn -t")
    command = f"{kind} -v2c -c labro 192.0.2.1 '' {_LINK_DOWN}; echo 終了コード $?"
    done = world.do(command, stage.agent)
    world.until(lambda: len(capture.lines) >= packets, f"{packets}個のパケットが採取される")
    return done, world.stop(capture, show=_PACKETS)


def _succeeds_unanswered(done: Done, packets: Done) -> bool:
    ports, kinds = {x[1] for x in _parse(packets)}, _kinds(packets)
    return done.has("終了コード 0") and ports == {"162"} and "GetResponse" not in kinds


def _notify(stage: _Stage) -> None:
    world = stage.world
    world.section("notifications", "TrapとInformを送る")
    world.say("マネージャーでは、まだ何も162番で待っていません。Trapを送ります。")
    done, packets = _send(stage, "snmptrap", 1)
    holds = _succeeds_unanswered(done, packets)
    world.fact("trap-is-not-answered", holds, seen="応答なし、終了コード0")
    world.say("同じことを、Informで知らせます。")
    done, packets = _send(stage, "snmpinform -t 1 -r 0", 1)
    holds = done.has("終了コード 1") and "GetResponse" not in _kinds(packets)
    world.fact("inform-needs-an-answer", holds, seen="応答なし、終了コード1")


def control(world: World) -> None:
    """Take the causes away: other communities, no view, other versions, a receiver."""
    stage = _set_up(world, _WIDER)
    _ask_otherwise(stage)
    _walk_otherwise(stage)
    _be_allowed(stage)
    _secure_otherwise(stage)
    _receive(stage)


def _ask_otherwise(stage: _Stage) -> None:
    world = stage.world
    world.section("community", "コミュニティ名を間違え、次に正しくする")
    _, packets = _ask_as(stage, "wrong", 1, code=1)
    holds, why = _is_one_round_trip(packets), "コミュニティ名が違えば、応答がない"
    world.control("get-is-one-round-trip", holds, why=why, seen="要求だけ")
    done, packets = _ask_as(stage, "labro", 2)
    holds, why = _is_silence(done, packets), "コミュニティ名が正しければ、応答が返る"
    world.control("wrong-community-is-silence", holds, why=why, seen="要求と応答")


def _walk_otherwise(stage: _Stage) -> None:
    world = stage.world
    world.section("repetitions", "GetBulkで1つずつ取る")
    world.say("`-Cr1`は、一度に取る個数を1にします。5往復になります。")
    _, packets = _watch(stage, _v2c("snmpbulkwalk -Cr1", _SYSTEM), 10)
    why = "snmpbulkwalkは、GetNextを使わない"
    world.control("walk-asks-for-the-next", _follows(packets), why=why, seen="GetBulkだけ")
    holds, why = _requests(packets) < 5, "一度に1つずつなら、往復の数はGetNextと同じ"
    world.control("bulk-saves-round-trips", holds, why=why, seen=f"{_requests(packets)}往復")
    holds, why = _lacks_counter(_counter(stage, "-v2c")), "v2cなら、64ビットの値が返る"
    world.control("v1-has-no-counter64", holds, why=why, seen="Counter64")


def _be_allowed(stage: _Stage) -> None:
    world = stage.world
    world.section("rights", "ビューのない名前と、書ける名前を使う")
    holds, why = _is_hidden(stage, "laball"), "ビューを限らなければ、値が返る"
    world.control("view-hides-the-rest", holds, why=why, seen="sysUpTime.0の値")
    holds, why = _set_is_refused(stage, "labrw"), "読み書きできる名前なら、Setが通る"
    world.control("read-only-refuses-set", holds, why=why, seen="新しい値")


def _secure_otherwise(stage: _Stage) -> None:
    world = stage.world
    world.section("levels", "v3のセキュリティレベルを変える")
    world.say("認証だけで、暗号化しません。")
    done, packets = _secure(stage, "authNoPriv", "authpass123")
    holds, why = _hides_the_value(packets), "暗号化しなければ、v3でも値が見える"
    world.control("v3-hides-the-value", holds, why=why, seen='"agent.example.com"')
    holds, why = _is_told(done, packets), "パスワードが正しければ、値が返る"
    world.control("v3-tells-a-wrong-password", holds, why=why, seen="GetResponse")
    world.say("暗号化します。")
    _, packets = _secure(stage, "authPriv", "authpass123")
    holds, why = _is_in_clear(packets), "v3のauthPrivなら、平文のものは利用者名だけ"
    world.control("v2c-is-in-clear", holds, why=why, seen="コミュニティ名も値もない")


def _receive(stage: _Stage) -> None:
    world = stage.world
    world.section("receiver", "受け手を置き、Informを送る")
    world.file("snmptrapd.conf", _RECEIVER)
    command = "snmptrapd -f -Lo -m '' -C -c snmptrapd.conf udp:192.0.2.1:162"
    world.start(command, stage.manager).wait_for("NET-SNMP version")
    done, packets = _send(stage, "snmpinform -t 1 -r 0", 2)
    holds, why = done.has("終了コード 1"), "受け手が応答すれば、成功で終わる"
    world.control("inform-needs-an-answer", holds, why=why, seen="GetResponse、終了コード0")
    holds, why = _succeeds_unanswered(done, packets), "TrapをInformにすれば、応答がある"
    world.control("trap-is-not-answered", holds, why=why, seen="GetResponse")
