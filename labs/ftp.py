"""Which side opens FTP's data connection, and what a filter, TLS and NAT make of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from labs.harness import Done, Lab, Namespace, World, cut, feature, program, trial

_HELPER = """\
table ip helper {
  ct helper ftp { type "ftp" protocol tcp; }
  chain pre {
    type filter hook prerouting priority filter
    tcp dport 21 ct helper set "ftp"
  }
}
"""

LAB = Lab(
    title="FTPのアクティブモードとパッシブモード",
    chapter="protocols/ftp",
    shows="データコネクションを張る側を確かめ、フィルター、TLS、NATを越えられるかを試します。",
    topology=(
        ("client", "eth0", "10.0.1.1/24"),
        ("router", "lan", "10.0.1.254/24"),
        ("router", "wan", "203.0.113.1/24"),
        ("server", "eth0", "203.0.113.2/24"),
    ),
    facts={
        "active-server-connects": "アクティブモードでは、サーバーがデータコネクションを張る",
        "active-comes-from-20": "20番から張る設定のサーバーは、データコネクションを20番から張る",
        "data-closes-before-226": "データコネクションのFINは、転送完了の226より先に届く",
        "password-in-clear": "FTPでは、USERとPASSが平文のまま流れる",
        "passive-client-connects": "パッシブモードでは、クライアントがデータコネクションを張る",
        "data-per-transfer": "制御コネクションは1本のまま、データコネクションは転送ごとに張られる",
        "two-numbers-make-a-port": "PORTと227の末尾の2つの数p1,p2は、p1×256+p2番ポートを表す",
        "epsv-has-no-address": "EPSVへの応答は、ポートだけを知らせ、アドレスを含まない",
        "filter-stops-active": "着信を止めるフィルターの内側からは、アクティブモードだけが失敗する",
        "helper-lets-active-in": "conntrackのFTPヘルパーがあれば、そのアクティブモードも通る",
        "tls-blinds-the-helper": "制御コネクションをTLSで暗号化すると、ヘルパーは効かない",
        "nat-leaves-the-address": "NATだけでは、PORTの中のアドレスは書き換わらない",
    },
    needs=(
        program("ip", "iproute2"),
        program("vsftpd"),
        program("curl"),
        program("openssl"),
        program("tcpdump"),
        program("nft", "nftables"),
        feature("network-namespace"),
        feature("nft-nat"),
        trial(
            "conntrackのFTPヘルパー",
            f"nft -f - <<'END'\n{_HELPER}END\nnft delete table ip helper",
            "sudo modprobe -a nf_conntrack_ftp nf_nat_ftp",
            "nftables",
        ),
    ),
    seconds=8,
    stable=True,
)

_CONFIGURATION = """\
listen=YES
listen_ipv6=NO
background=NO
run_as_launching_user=YES
seccomp_sandbox=NO
anonymous_enable=YES
anon_root=/tmp/lab/pub
secure_chroot_dir=/tmp/lab/empty
xferlog_enable=NO
connect_timeout=2
ssl_enable=YES
allow_anon_ssl=YES
force_local_logins_ssl=NO
force_local_data_ssl=NO
require_ssl_reuse=NO
ssl_ciphers=HIGH
rsa_cert_file=/tmp/lab/server.pem
"""
_CERTIFICATE = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    " -subj /CN=203.0.113.2 -keyout server.pem -out cert.pem && cat cert.pem >> server.pem"
)
_FILTER = """\
table ip filter {
  chain forward {
    type filter hook forward priority filter
    ct state established,related accept
    iifname "lan" accept
    drop
  }
}
"""
_MASQUERADE = """\
table ip nat {
  chain post {
    type nat hook postrouting priority srcnat
    oifname "wan" masquerade
  }
}
"""
_SYN = re.compile(r"IP (\S+)\.(\d+) > (\S+)\.(\d+): Flags \[S\]")
_SHORT = cut(r", (?:seq|ack) .*(?=, length)")
_SCRIPT = """\
curl -sv -O "$@" 2>&1 |
  grep -E '^[<>] (AUTH|234|PORT|200 PORT|PASV|227|EPSV|229|RETR|150|226|425|500)'
"""
_ACTIVE_EVENTS = r"\[S\]|\.20 > .*\[F|FTP: (?:USER|PASS|PORT|RETR|226)"
_PASSIVE_EVENTS = r"\[S\]|FTP: (?:RETR|226)"
_CLIENT, _SERVER = "10.0.1.1", "203.0.113.2"


@dataclass(frozen=True)
class _Stage:
    """A client, a router in between and an FTP server."""

    world: World
    client: Namespace
    router: Namespace
    server: Namespace


def _set_up(world: World, from_20: str) -> _Stage:
    world.section("hosts", "クライアントとFTPサーバーを、ルーター越しにつなぐ")
    network = world.network
    client, server = network.namespace("client"), network.namespace("server")
    router = network.router("router")
    network.cable((client, "eth0", "10.0.1.1/24"), (router, "lan", "10.0.1.254/24"))
    network.cable((server, "eth0", "203.0.113.2/24"), (router, "wan", "203.0.113.1/24"))
    client.route("default", "10.0.1.254")
    server.route("default", "203.0.113.1")
    _serve(world, server, from_20)
    return _Stage(world, client, router, server)


def _serve(world: World, server: Namespace, from_20: str) -> None:
    """Start an FTP server with two files."""
    world.file("vsftpd.conf", _CONFIGURATION, unseen=True)
    for name in "ab":
        world.file(f"pub/{name}.txt", f"This is {name}.txt.\n", unseen=True)
    world.ask(f"mkdir empty && chmod 555 pub empty && {_CERTIFICATE}")
    world.say(
        "サーバーは匿名で読め、ファイルを2つ置いてあります。制御コネクションのやり取りのうち、"
        "転送に関わる行だけを表示して取るスクリプトも置きます。"
    )
    world.file("ftpget.sh", _SCRIPT)
    world.say(
        "vsftpdは、uid 0で動くときだけ20番から張ります。"
        "一般利用者でも試せるよう、`unshare`でuid 0に見せ、特権ポートの制限を外します。"
    )
    server.sysctl("net.ipv4.ip_unprivileged_port_start=0")
    ports = "-opasv_min_port=30001 -opasv_max_port=30001"
    world.start(
        f"unshare --map-root-user vsftpd vsftpd.conf -oconnect_from_port_20={from_20} {ports}",
        server,
    )
    world.ask("ss -Hltn sport = 21", server, until="LISTEN")


def _pick(pattern: str) -> Callable[[str], str]:
    """Show the matching packets only (the text around says so), each once, without numbers."""

    def view(text: str) -> str:
        lines = [line for line in text.splitlines() if re.search(pattern, line)]
        once = {line.partition(", ack")[0].partition(", win")[0]: line for line in reversed(lines)}
        return _SHORT("\n".join(reversed(once.values())))

    return view


def _fetch(stage: _Stage, mode: str, files: str = "a.txt") -> Done:
    """Fetch files; show what is said on the control connection about the transfer."""
    command = f"sh ftpget.sh {mode}ftp://203.0.113.2/{files}"
    return stage.world.do(command, stage.client)


def _active(stage: _Stage, port: int, options: str = "") -> Done:
    return _fetch(stage, f"{options}--disable-eprt -P 10.0.1.1:{port} ")


def _passive(stage: _Stage, files: str = "a.txt", options: str = "") -> Done:
    return _fetch(stage, f"{options}--disable-epsv ", files)


def _succeeded(done: Done) -> bool:
    return done.has("^< 226")


def _load(stage: _Stage, name: str, text: str) -> None:
    stage.world.file(name, text)
    stage.world.do(f"nft -f {name}", stage.router)


def run(world: World) -> None:
    """Transfer files in both modes, then through a filter, with TLS and through NAT."""
    stage = _set_up(world, "YES")
    port = _show_active(stage)
    _show_passive(stage, port)
    _show_extended(stage)
    _cross_a_filter(stage)
    _help_it(stage)
    _encrypt_it(stage)
    _cross_a_nat(stage)


# Both modes


def _watch(stage: _Stage, transfer: str, port: int = 0) -> tuple[Done, Done]:
    """Make a transfer; return the talk and the packets, of which the telling ones are shown."""
    world = stage.world
    capture = stage.client.capture("eth0", "tcp", "-nn -t")
    talk = _active(stage, port) if port else _passive(stage, transfer)
    capture.wait_for(rf"> {_SERVER}\.21: Flags \[F")
    world.say("クライアントで採取したパケットから、要所だけを抜き出します。")
    events = _ACTIVE_EVENTS if port else _PASSIVE_EVENTS
    return talk, world.stop(capture, show=_pick(events))


def _connections(packets: Done) -> list[tuple[str, ...]]:
    """Return source and destination of every connection, once even if a SYN was sent again."""
    return list(dict.fromkeys(_SYN.findall(packets.text)))


def _data_connections(packets: Done) -> list[tuple[str, ...]]:
    """Leave the control connection out."""
    return [found for found in _connections(packets) if found[3] != "21"]


def _opened_by(packets: Done, side: str) -> bool:
    sources = {found[0] for found in _data_connections(packets)}
    return sources == {side}


def _arrow(packets: Done) -> str:
    return "、".join(f"{a}:{p} → {b}:{q}" for a, p, b, q in _data_connections(packets)[:1])


def _said_port(done: Done) -> int:
    """Return the port that a PORT command or a 227 answer tells of."""
    found = done.find(r"(?:PORT |227 .*\()(?:\d+,){4}(\d+),(\d+)")
    return int(found[1]) * 256 + int(found[2])


def _ends_first(packets: Done) -> bool:
    """Tell whether the data connection's FIN comes before 226."""
    return packets.find(r"\.20 > .*\[F").start() < packets.find("FTP: 226").start()


def _shows_password(packets: Done) -> bool:
    return packets.has("FTP: USER anonymous") and packets.has("FTP: PASS ")


def _show_active(stage: _Stage) -> bool:
    """Return whether the port told is the one connected to."""
    world = stage.world
    world.section("active", "アクティブモードで1つ取る")
    world.say("curlの`-P`はアクティブモードで、5000番で待つことをPORTで知らせます。")
    talk, packets = _watch(stage, "a.txt", 5000)
    arrow = _arrow(packets)
    world.fact("active-server-connects", _opened_by(packets, _SERVER), seen=f"SYNは{arrow}")
    (connection,) = _data_connections(packets)
    world.fact("active-comes-from-20", connection[1] == "20", seen=f"送信元は{connection[1]}番")
    seen = "FINの後に226"
    world.fact("data-closes-before-226", _ends_first(packets), seen=seen)
    seen = packets.find("FTP: (PASS .*)")[1].strip()
    world.fact("password-in-clear", _shows_password(packets), seen=seen)
    return str(_said_port(talk)) == connection[3]


def _show_passive(stage: _Stage, port_was_right: bool) -> None:
    world = stage.world
    world.section("passive", "パッシブモードで2つ取る")
    world.say("サーバーが227で待つポートを知らせます。このサーバーは30001番だけを使う設定です。")
    talk, packets = _watch(stage, "[a-b].txt")
    world.fact(
        "passive-client-connects", _opened_by(packets, _CLIENT), seen="SYNは2本ともclientから"
    )
    connections = _data_connections(packets)
    seen = f"制御{_controls(packets)}本、データ{len(connections)}本"
    holds = (_controls(packets), len(connections)) == (1, 2)
    world.fact("data-per-transfer", holds, seen=seen)
    holds = port_was_right and {str(_said_port(talk))} == {found[3] for found in connections}
    seen = "19×256+136=5000、117×256+49=30001"
    world.fact("two-numbers-make-a-port", holds, seen=seen)


def _controls(packets: Done) -> int:
    return len(_connections(packets)) - len(_data_connections(packets))


def _names_an_address(done: Done) -> bool:
    return done.has(r"^< 22[79] .*203[.,]0[.,]113[.,]2")


def _show_extended(stage: _Stage) -> None:
    world = stage.world
    world.section("epsv", "拡張パッシブモードで取る")
    world.say("curlは、止めなければまずEPSVを使います。")
    talk = _fetch(stage, "")
    seen = talk.find("229 .*")[0].strip()
    holds = _succeeded(talk) and not _names_an_address(talk)
    world.fact("epsv-has-no-address", holds, seen=seen)


# What lies in between


def _only_passive(stage: _Stage, port: int) -> bool:
    """Try both modes; return whether only the passive mode succeeds."""
    active = _succeeded(_active(stage, port))
    return _succeeded(_passive(stage)) and not active


def _cross_a_filter(stage: _Stage) -> None:
    world = stage.world
    world.section("filter", "フィルターを越える")
    world.say("内側から始めた通信だけを許します。サーバーは、2秒つながらないと425を返す設定です。")
    _load(stage, "filter.nft", _FILTER)
    holds = _only_passive(stage, 5001)
    world.fact("filter-stops-active", holds, seen="アクティブは425、パッシブは226")


def _help_it(stage: _Stage) -> None:
    world = stage.world
    world.section("helper", "ヘルパーにPORTを読ませる")
    world.say("制御コネクションにヘルパーを付けると、知らせたポートへの着信が`related`になります。")
    _load(stage, "helper.nft", _HELPER)
    talk = _active(stage, 5002)
    world.fact("helper-lets-active-in", _succeeded(talk), seen="アクティブが226")


def _encrypt_it(stage: _Stage) -> None:
    world = stage.world
    world.section("tls", "TLSで暗号化する（FTPS）")
    world.say("ヘルパーを付けたまま、制御コネクションを暗号化します。")
    talk = _active(stage, 5003, "--ssl-reqd -k ")
    holds = talk.has("^< 234") and not _succeeded(talk)
    world.fact("tls-blinds-the-helper", holds, seen="234の後、アクティブは425")


def _ports_outside(stage: _Stage, port: int) -> Done:
    """Use the active mode; show and return the PORT commands that leave the router."""
    world = stage.world
    capture = stage.router.capture("wan", "'tcp port 21'", "-nn -t")
    _active(stage, port)
    capture.wait_for(r"FTP: PORT .*\n(?s:.*)FTP: [25]00 .*PORT")
    world.say("ルーターの外側で採取した、PORTとその応答です。")
    return world.stop(capture, show=_pick("FTP: PORT|FTP: .00 .*PORT"))


def _keeps_the_address(packets: Done) -> bool:
    """Tell whether the router's address is in the header, and the client's in the text."""
    return packets.has(r"^IP 203\.0\.113\.1\..*PORT 10,0,1,1,")


def _cross_a_nat(stage: _Stage) -> None:
    world = stage.world
    world.section("nat", "NATを越える")
    world.say("ヘルパーを外し、NATを入れます。暗号化はしません。")
    world.do("nft delete table ip helper", stage.router)
    _load(stage, "nat.nft", _MASQUERADE)
    packets = _ports_outside(stage, 5004)
    seen = "送信元は203.0.113.1、PORTの中は10,0,1,1"
    world.fact("nat-leaves-the-address", _keeps_the_address(packets), seen=seen)


def control(world: World) -> None:
    """Take the causes away: the other mode, no filter, no related, TLS, a helper with NAT."""
    stage = _set_up(world, "NO")
    _other_modes(stage)
    _encrypted(stage)
    _other_rules(stage)


def _other_modes(stage: _Stage) -> None:
    world = stage.world
    world.section("modes", "20番を使わない設定で、モードを入れ替える")
    _, packets = _watch(stage, "a.txt", 5000)
    (connection,) = _data_connections(packets)
    why = "既定の設定（connect_from_port_20=NO）なら、20番から張らない"
    world.control("active-comes-from-20", connection[1] == "20", why=why, seen="20番でないポート")
    holds = _opened_by(packets, _CLIENT)
    why = "アクティブモードなら、サーバーが張る"
    world.control("passive-client-connects", holds, why=why, seen="SYNはserverから")
    talk, packets = _watch(stage, "a.txt")
    holds = _opened_by(packets, _SERVER)
    why = "パッシブモードなら、クライアントが張る"
    world.control("active-server-connects", holds, why=why, seen="SYNはclientから")
    why = "EPSVでなくPASVなら、アドレスも知らせる"
    holds, seen = not _names_an_address(talk), talk.find("227 .*")[0].strip()
    world.control("epsv-has-no-address", holds, why=why, seen=seen)


def _encrypted(stage: _Stage) -> None:
    world = stage.world
    world.section("encrypted", "TLSでログインする")
    capture = stage.client.capture("eth0", "'tcp port 21'", "-nn -t")
    _passive(stage, options="--ssl-reqd -k ")
    capture.wait_for(r"\[F")
    world.say("採取したパケットのうち、FTPとして読めた行です。")
    packets = world.stop(capture, show=_pick("FTP: (?:AUTH|234|USER|PASS)"))
    holds = _shows_password(packets)
    why = "制御コネクションを暗号化すれば、PASSは読めない"
    world.control("password-in-clear", holds, why=why, seen="AUTHと234の後は読めない")


def _other_rules(stage: _Stage) -> None:
    world = stage.world
    world.section("rules", "フィルターとヘルパーを変える")
    holds = _only_passive(stage, 5001)
    why = "フィルターがなければ、アクティブも成功する"
    world.control("filter-stops-active", holds, why=why, seen="どちらも226")
    _load(stage, "filter.nft", _FILTER)
    _load(stage, "helper.nft", _HELPER)
    holds = not _succeeded(_active(stage, 5002))
    why = "暗号化しなければ、ヘルパーが効く"
    world.control("tls-blinds-the-helper", holds, why=why, seen="アクティブが226")
    world.say("NATを入れても、ヘルパーがPORTの中を書き換えます。")
    _load(stage, "nat.nft", _MASQUERADE)
    packets = _ports_outside(stage, 5003)
    why, seen = "ヘルパーがあれば、PORTの中も書き換わる", packets.find("PORT .*")[0].strip()
    world.control("nat-leaves-the-address", _keeps_the_address(packets), why=why, seen=seen)
    world.say("最後に、フィルターから`related`の許可を除きます。")
    world.do("sed -i s/,related// filter.nft", stage.router)
    world.do("nft delete table ip filter; nft -f filter.nft", stage.router)
    holds = _succeeded(_active(stage, 5004))
    why = "relatedを許さなければ、ヘルパーだけでは通らない"
    world.control("helper-lets-active-in", holds, why=why, seen="アクティブが425")
