"""What a load balancer looks at, and what the servers behind it see."""

from __future__ import annotations

from dataclasses import dataclass

from labs.harness import Done, Lab, Namespace, Session, World, feature, program

LAB = Lab(
    title="L4とL7のロードバランサー",
    chapter="protocols/load-balancing",
    shows="HAProxyの後ろに2台のサーバーを置き、L4とL7の振り分けを比べます。",
    topology=(
        ("client", "eth0", "192.0.2.1/24"),
        ("lb", "eth0", "192.0.2.2/24"),
        ("lb", "eth1", "10.0.1.1/24"),
        ("web1", "eth0", "10.0.1.2/24"),
        ("lb", "eth2", "10.0.2.1/24"),
        ("web2", "eth0", "10.0.2.2/24"),
    ),
    facts={
        "l4-chooses-per-connection": (
            "L4では、同じコネクションのリクエストはすべて同じサーバーに届く"
        ),
        "l7-chooses-per-request": (
            "L7では、1本のコネクションのリクエストがURLごとに別のサーバーへ届く"
        ),
        "backend-sees-the-balancer": (
            "プロキシ型のロードバランサーの後ろでは、送信元がロードバランサーのアドレスになる"
        ),
        "proxy-makes-two-connections": (
            "プロキシ型のロードバランサーは、クライアント側とサーバー側に別のコネクションを持つ"
        ),
        "forwarded-for-names-the-client": (
            "L7では、X-Forwarded-Forでクライアントのアドレスをサーバーに伝えられる"
        ),
        "forwarded-for-can-be-forged": (
            "追記するだけの設定では、クライアントが書いたX-Forwarded-Forもサーバーに届く"
        ),
        "l4-carries-any-bytes": "L4は中身を見ないので、HTTPでないデータも運ぶ",
        "l7-refuses-what-is-not-http": "L7は、HTTPでないデータに400を返す",
        "proxy-line-comes-first": (
            "PROXY protocol v1は、コネクションの先頭の1行でクライアントのアドレスを伝える"
        ),
        "connecting-is-not-health": (
            "接続できるかだけを見るヘルスチェックは、503を返すサーバーも正常とみなす"
        ),
        "http-check-leaves-the-broken-out": (
            "アプリの応答を見るヘルスチェックは、503を返すサーバーへの振り分けを止める"
        ),
    },
    needs=(
        program("ip", "iproute2"),
        program("ss", "iproute2"),
        program("haproxy"),
        program("curl"),
        program("python3"),
        feature("network-namespace"),
    ),
    seconds=4,
    stable=True,
    names=(r"PROXY TCP4 \S+ \S+ (?P<port>\d+)",),
)

_WEB = """\
import http.server, pathlib, socketserver, sys

class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # 1本のコネクションで、何度も答えます

    def do_GET(self):
        broken = pathlib.Path(sys.argv[1] + ".broken").exists()
        sender, forwarded = self.client_address[0], self.headers.get_all("X-Forwarded-For")
        text = f"{sys.argv[1]} {self.path} 送信元={sender} XFF={forwarded}\\n".encode()
        self.send_response(503 if broken else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

socketserver.ThreadingTCPServer(("", 8080), Web).serve_forever()
"""

_DEFAULTS = """\
global
    nbthread 1              # 1本のスレッドで、順番をそろえます

defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
"""
_CONFIG = """\
listen l4                   # L4: コネクションを順番に振り分けます
    mode tcp
    bind 192.0.2.2:8001
    server web1 10.0.1.2:8080
    server web2 10.0.2.2:8080

frontend l7                 # L7: URLで振り分けます
    bind 192.0.2.2:8002
    option forwardfor
    use_backend images if { path_beg /images/ }
    default_backend pages
backend pages
    server web1 10.0.1.2:8080
backend images
    server web2 10.0.2.2:8080

listen raw                  # L4: PROXY protocolを付けます
    mode tcp
    bind 192.0.2.2:8003
    server web1 10.0.1.2:9000 send-proxy
"""
_CHECKS = """\
listen connect-check        # 接続できるかだけを見ます
    bind 192.0.2.2:{connect}
    server web1 10.0.1.2:8080 check inter 200ms
    server web2 10.0.2.2:8080 check inter 200ms

listen http-check           # GET /healthへの応答を見ます
    bind 192.0.2.2:{http}
    option httpchk GET /health
    server web1 10.0.1.2:8080 check inter 200ms
    server web2 10.0.2.2:8080 check inter 200ms
"""
_BARE = """\
listen l4
    mode tcp
    bind 192.0.2.2:8001
    server web1 10.0.1.2:8080
    server web2 10.0.2.2:8080

listen l7                   # option forwardforを外します
    bind 192.0.2.2:8002
    server web1 10.0.1.2:8080

listen raw                  # send-proxyを外します
    mode tcp
    bind 192.0.2.2:8003
    server web1 10.0.1.2:9000

listen overwriting          # X-Forwarded-Forを上書きします
    bind 192.0.2.2:8006
    http-request set-header X-Forwarded-For %[src]
    server web1 10.0.1.2:8080
"""
_HONEST, _LIE = "XFF=['192.0.2.1']", "X-Forwarded-For: 203.0.113.9"
_EACH = "-w '新しいコネクション: %{num_connects}本\\n'"


@dataclass(frozen=True)
class _Stage:
    """A client, a load balancer and two servers behind it."""

    world: World
    client: Namespace
    lb: Namespace
    web1: Namespace
    web2: Namespace


def _set_up(world: World, config: str, *, again: bool = False) -> _Stage:
    world.section("hosts", "ロードバランサーの後ろに2台を置く")
    net = world.network
    client, lb = net.pair("client", "lb")
    web1, web2 = net.namespace("web1"), net.namespace("web2")
    net.cable((lb, "eth1", "10.0.1.1/24"), (web1, "eth0", "10.0.1.2/24"))
    net.cable((lb, "eth2", "10.0.2.1/24"), (web2, "eth0", "10.0.2.2/24"))
    stage = _Stage(world, client, lb, web1, web2)
    world.say("web.pyは、自分の名前、URL、送信元とX-Forwarded-For（XFF）を答えます。")
    world.file("web.py", _WEB, unseen=again)
    world.file("common.cfg", _DEFAULTS, unseen=again)
    for host in (web1, web2):
        world.start(f"python3 web.py {host.name}", host)
        _listening(stage, host, "8080")
    world.say("lbではHAProxyを動かします。設定は次のとおりです。")
    _balance(stage, "lb.cfg", config, "8003")
    return stage


def _listening(stage: _Stage, host: Namespace, port: str) -> None:
    command = f"ss -Hltn sport = {port}"
    stage.world.until(lambda: stage.world.ask(command, host).text, f"{port}番の待ち受けが始まる")


def _balance(stage: _Stage, name: str, config: str, port: str) -> None:
    """Start HAProxy with a configuration; wait for one of its ports."""
    stage.world.file(name, config)
    stage.world.start(f"haproxy -db -f common.cfg -f {name}", stage.lb)
    _listening(stage, stage.lb, port)


def run(world: World) -> None:
    """Compare L4 and L7 by connections, addresses, bytes and health checks."""
    stage = _set_up(world, _CONFIG)
    _per_connection(stage)
    _per_request(stage)
    _forwarded_for(stage)
    _raw_bytes(stage)
    _not_http(stage)
    _health(stage)


def _get(stage: _Stage, rest: str) -> Done:
    return stage.world.do(f"curl -sS {rest}", stage.client)


def _both_urls(stage: _Stage, port: int) -> tuple[list[str], list[str]]:
    """Request two URLs on one connection; return who answered, and the new connections."""
    to = f"http://192.0.2.2:{port}"
    done = _get(stage, f"{_EACH} {to}/pages/a {to}/images/b")
    return done.all(r"^web\d"), done.all(r": (\d)本")


def _on_one_connection(answer: tuple[list[str], list[str]], *, same: bool) -> bool:
    """Return whether one connection served both URLs, from the same server or from two."""
    servers, connections = answer
    return connections == ["1", "0"] and len(set(servers)) == (1 if same else 2)


def _per_connection(stage: _Stage) -> None:
    world = stage.world
    world.section("l4", "L4: コネクションごとに振り分ける")
    world.say("8001番（L4）に、1本のコネクションで2つのURLを頼みます。")
    answer = _both_urls(stage, 8001)
    holds = _on_one_connection(answer, same=True)
    world.fact("l4-chooses-per-connection", holds, seen=f"1本のコネクションに{_servers(answer[0])}")
    world.say("コネクションを分けると、次の1本は別のサーバーに届きます。")
    text = _get(stage, "http://192.0.2.2:8001/pages/a").text
    holds = "送信元=10.0.2.1 " in text  # the balancer's eth2
    world.fact("backend-sees-the-balancer", holds, seen=text.strip())


def _servers(servers: list[str]) -> str:
    return "と".join(servers)


def _per_request(stage: _Stage) -> None:
    world = stage.world
    world.section("l7", "L7: リクエストごとに振り分ける")
    world.say("同じことを、8002番（L7）に頼みます。")
    answer = _both_urls(stage, 8002)
    holds = _on_one_connection(answer, same=False)
    world.fact("l7-chooses-per-request", holds, seen=f"1本のコネクションに{_servers(answer[0])}")


def _forwarded(stage: _Stage, port: int, header: str = "") -> str:
    """Return what the server answers behind a port, perhaps to a header of our own."""
    option = f"-H '{header}' " if header else ""
    return _get(stage, f"{option}http://192.0.2.2:{port}/pages/a").text.strip()


def _forwarded_for(stage: _Stage) -> None:
    world = stage.world
    world.section("forwarded-for", "クライアントのアドレスをヘッダーで渡す")
    world.say("L7ではHTTPのヘッダーを足せます。2つ目のリクエストは、自分でもヘッダーを書きます。")
    honest, forged = _forwarded(stage, 8002), _forwarded(stage, 8002, _LIE)
    world.fact("forwarded-for-names-the-client", _HONEST in honest, seen=honest)
    world.fact("forwarded-for-can-be-forged", "203.0.113.9" in forged, seen=forged)


def _talk(stage: _Stage) -> tuple[Session, Session]:
    """Open a connection through the L4 port 8003 to a server that does not speak HTTP."""
    here, there = stage.world.python(stage.client), stage.world.python(stage.web1)
    here("import socket")
    there("import socket")
    there("listener = socket.create_server(('10.0.1.2', 9000))")
    here("connection = socket.create_connection(('192.0.2.2', 8003))")
    here("connection.sendall(b'hello\\n')")
    there("peer, address = listener.accept()")
    there("lines = peer.makefile('rb')")
    return here, there


def _connections(stage: _Stage, ports: str, until: str = "") -> int:
    """Return how many established connections the load balancer itself has."""
    command = f"ss -Htn state established '( {ports} )' | sort"
    return len(stage.world.do(command, stage.lb, until=until).lines)


def _raw_bytes(stage: _Stage) -> None:
    world = stage.world
    world.section("raw", "L4: HTTPでないデータを運ぶ")
    world.say("8003番（L4、PROXY protocol付き）を通して、HTTPでない1行をweb1に送ります。")
    _, there = _talk(stage)
    first, second = there("lines.readline()"), there("lines.readline()")
    holds = first.startswith("b'PROXY TCP4 192.0.2.1 192.0.2.2 ")
    world.fact("proxy-line-comes-first", holds, seen=first)
    world.fact("l4-carries-any-bytes", "hello" in second, seen=f"web1に{second}")
    world.say("このとき、lbには2本のコネクションがあります。")
    count = _connections(stage, "sport = 8003 or dport = 9000", ":8003")
    world.fact("proxy-makes-two-connections", count == 2, seen=f"lbに{count}本")


def _hello(stage: _Stage, port: int) -> str:
    """Send a line that is not HTTP; return the first line of the answer."""
    here = stage.world.python(stage.client)
    here("import socket")
    here(f"connection = socket.create_connection(('192.0.2.2', {port}))")
    here("connection.sendall(b'hello\\r\\n\\r\\n')")
    return here("connection.makefile('rb').readline()")


def _not_http(stage: _Stage) -> None:
    world = stage.world
    world.section("not-http", "L7: HTTPでないデータを断る")
    world.say("同じ行をL7の8002番に送ると、サーバーには届かず、lbが答えます。")
    answer = _hello(stage, 8002)
    world.fact("l7-refuses-what-is-not-http", " 400 " in answer, seen=answer)


def _break_web1(stage: _Stage) -> None:
    world = stage.world
    world.say("`web1.broken`があると、web1はすべてのURLに503を返します。接続はできます。")
    world.do("touch web1.broken")


def _codes(stage: _Stage, port: int, until: str = "") -> Done:
    """Request four times; return how often each status came."""
    request = f"curl -sS -o /dev/null -w '%{{http_code}}\\n' http://192.0.2.2:{port}/pages/a"
    command = f"for i in 1 2 3 4; do {request}; done | sort | uniq -c"
    return stage.world.do(command, stage.client, until=until)


def _counted(codes: Done) -> str:
    return "、".join(f"{code}が{count}回" for count, code in map(str.split, codes.lines))


def _health(stage: _Stage) -> None:
    world = stage.world
    world.section("health", "ヘルスチェックが見るもの")
    world.say("ヘルスチェックのある設定で、もう1つHAProxyを動かします。")
    config = _CHECKS.format(connect=8004, http=8005)
    _balance(stage, "checks.cfg", config, "8005")
    _break_web1(stage)
    world.say("4回ずつ頼み、状態コードを数えます。応答を見る8005番は、やがてweb1を外します。")
    http = _codes(stage, 8005, until=r"\A +4 200$")
    world.fact("http-check-leaves-the-broken-out", not http.has("503"), seen=_counted(http))
    world.say("接続だけを見る8004番は、同じ間隔で調べていても、web1に振り分け続けます。")
    connect = _codes(stage, 8004)
    world.fact("connecting-is-not-health", connect.has("503"), seen=_counted(connect))


def control(world: World) -> None:
    """Leave out what passes the address on, go around the balancer, swap the health checks."""
    stage = _set_up(world, _BARE, again=True)
    _other_connections(stage)
    _no_headers(stage)
    _no_proxy_line(stage)
    _no_balancer(stage)
    _swapped_checks(stage)


def _other_connections(stage: _Stage) -> None:
    world = stage.world
    world.section("connections", "URLを見ないL4に、同じことを頼む")
    answer = _both_urls(stage, 8001)
    world.control(
        "l7-chooses-per-request",
        _on_one_connection(answer, same=False),
        why="L4はURLを見ないので、同じコネクションのリクエストを分けない",
        seen=f"1本のコネクションに{_servers(answer[0])}",
    )
    servers = [_get(stage, "http://192.0.2.2:8001/pages/a").find(r"^web\d")[0] for _ in range(2)]
    world.control(
        "l4-chooses-per-connection",
        len(set(servers)) == 1,
        why="コネクションを分ければ、別のサーバーに届く",
        seen=f"2本のコネクションに{_servers(servers)}",
    )


def _no_headers(stage: _Stage) -> None:
    world = stage.world
    world.section("headers", "ヘッダーを足さない設定と、上書きする設定")
    text = _forwarded(stage, 8002)
    why = "forwardforがなければ、クライアントのアドレスは伝わらない"
    world.control("forwarded-for-names-the-client", _HONEST in text, why=why, seen=text)
    text = _forwarded(stage, 8006, _LIE)
    why = "上書きすれば、クライアントが書いた値は届かない"
    world.control("forwarded-for-can-be-forged", "203.0.113.9" in text, why=why, seen=text)


def _no_proxy_line(stage: _Stage) -> None:
    world = stage.world
    world.section("no-proxy-line", "PROXY protocolを付けず、L7とも比べる")
    here, there = _talk(stage)
    first = there("lines.readline()")
    why = "send-proxyがなければ、先頭の行はクライアントのデータである"
    world.control("proxy-line-comes-first", "PROXY" in first, why=why, seen=first)
    there("peer.sendall(b'welcome\\n')")
    answer = here("connection.recv(100)")
    why = "L4なら、HTTPでないデータにもサーバーが答える"
    world.control("l7-refuses-what-is-not-http", " 400 " in answer, why=why, seen=answer)
    answer = _hello(stage, 8002)
    why = "中身を見るL7は、HTTPでないデータを運ばない"
    world.control("l4-carries-any-bytes", " 400 " not in answer, why=why, seen=answer)


def _no_balancer(stage: _Stage) -> None:
    world = stage.world
    world.section("no-balancer", "lbをただのルーターにして、web1に直接つなぐ")
    stage.lb.sysctl("net.ipv4.ip_forward=1")
    stage.client.route("10.0.1.0/24", "192.0.2.2")
    stage.web1.route("192.0.2.0/24", "10.0.1.1")
    text = _get(stage, "http://10.0.1.2:8080/pages/a").text
    why = "プロキシを通らなければ、送信元はクライアントのままである"
    holds = "送信元=10.0.1.1 " in text
    world.control("backend-sees-the-balancer", holds, why=why, seen=text.strip())
    here, there = world.python(stage.client), world.python(stage.web1)
    here("import socket")
    there("import socket")
    there("listener = socket.create_server(('10.0.1.2', 9001))")
    here("connection = socket.create_connection(('10.0.1.2', 9001))")
    count = _connections(stage, "sport = 9001 or dport = 9001")
    why = "ルーターは、コネクションの端にならない"
    world.control("proxy-makes-two-connections", count == 2, why=why, seen=f"lbに{count}本")


def _swapped_checks(stage: _Stage) -> None:
    world = stage.world
    world.section("swapped-checks", "2つのヘルスチェックを入れ替える")
    config = _CHECKS.format(connect=8005, http=8004)
    _balance(stage, "checks.cfg", config, "8005")
    _break_web1(stage)
    http = _codes(stage, 8004, until=r"\A +4 200$")
    why = "応答を見れば、503を返すサーバーを正常とはみなさない"
    world.control("connecting-is-not-health", http.has("503"), why=why, seen=_counted(http))
    connect = _codes(stage, 8005)
    why = "接続だけを見ると、503を返すサーバーへの振り分けを止めない"
    left_out = not connect.has("503")
    world.control("http-check-leaves-the-broken-out", left_out, why=why, seen=_counted(connect))
