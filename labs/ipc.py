"""How processes with separate memory hand each other bytes, files and memory."""

from __future__ import annotations

import re

from labs.harness import Lab, Session, World, cut, feature, program

LAB = Lab(
    title="プロセス間通信の道具を比べる",
    chapter="os/ipc",
    shows="パイプ、FIFO、UNIXドメインソケット、共有メモリが、プロセスの間で何を渡すかを見ます。",
    facts={
        "pipe-comes-before-the-forks": "シェルは、パイプを作ってから、両側のプロセスをforkする",
        "dup2-replaces-stdio": "左の標準出力と右の標準入力は、dup2でパイプに替わる",
        "pipe-holds-64-kib": "Linuxのパイプに溜まるのは、既定では64 KiBまでである",
        "full-pipe-blocks-the-writer": "パイプがいっぱいの間、書き手のwriteは待たされる",
        "pipe-keeps-no-boundaries": "パイプはバイトの列で、何回に分けて書いたかは残らない",
        "eof-needs-every-writer-closed": "書き側がすべて閉じると、読み手にファイルの終わりが届く",
        "no-reader-means-sigpipe": "読み手のいないパイプに書くと、SIGPIPEで終わる（141）",
        "fifo-waits-for-a-reader": "FIFOは、読み手が開くまで、書き込み用に開けない",
        "kernel-names-the-peer": "UNIXドメインソケットの相手のPIDは、カーネルが教える",
        "descriptor-can-be-passed": "UNIXドメインソケットは、開いたファイルそのものを渡せる",
        "shared-mapping-is-seen": "MAP_SHAREDの領域に書くと、ほかのプロセスにもそのまま見える",
        "sysv-memory-outlives-its-maker": "System Vの共有メモリは、作ったプロセスが終わっても残る",
    },
    needs=(
        program("bash"),
        program("strace"),
        program("python3"),
        program("ipcmk", "util-linux"),
        feature("strace"),
    ),
    seconds=3,
    stable=True,
    names=(r"\btrace\.(?P<pid>\d+)\b",),
)

_TRACE = "strace -ff --signal=none -e trace=pipe,pipe2,clone,clone3,fork,vfork,dup2,dup3,execve"
_NO_POINTERS = cut(r"0x[0-9a-f]+( /\* \d+ vars \*/)?")
_OPEN_TO_WRITE = "write = os.open('fifo', os.O_WRONLY | os.O_NONBLOCK)"
_PEER = "struct.unpack('3i', server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]"
_LIST = "ipcs -m | awk 'NR > 2 {print $2, $5, $6}'"


def run(world: World) -> None:
    """Trace a pipeline, fill a pipe, then meet the named and the shared ways."""
    _pipeline(world)
    _capacity(world)
    _boundaries(world)
    _end_of_file(world)
    _no_reader(world)
    _fifo(world)
    _sockets(world)
    _shared_memory(world)
    _system_v(world)


def _trace(world: World, script: str) -> list[list[str]]:
    """Trace a shell; return its lines and those of each of its children."""
    world.do("echo 'Error: disk full' > log")
    world.do(f"{_TRACE} -o trace bash -c '{script}'")
    text = world.do("tail -v -n +1 trace.* | grep -v +++", show=_NO_POINTERS).text
    return [part.splitlines() for part in text.split("==> trace.")[1:]]


def _first(lines: list[str], word: str) -> int:
    """Return the number of the first line that begins with a word, or a large one."""
    return next((n for n, line in enumerate(lines) if line.startswith(word)), 999)


def _pipe_first(shell: list[str]) -> bool:
    return _first(shell, "pipe") < min(_first(shell, word) for word in ("clone", "fork", "vfork"))


def _connected(traces: list[list[str]]) -> bool:
    """Return whether one child's output and another's input became the shell's pipe."""
    made = re.search(r"pipe2?\(\[(\d+), (\d+)\]", "\n".join(traces[0]))
    read, write = made.groups() if made else ("-", "-")
    calls = "\n".join(line for child in traces[1:] for line in child)
    return bool(
        re.search(rf"dup[23]\({write}, 1\b", calls) and re.search(rf"dup[23]\({read}, 0\b", calls)
    )


def _pipeline(world: World) -> None:
    world.section("pipeline", "シェルがパイプをつなぐところを見る")
    world.say("fd 0は標準入力、fd 1は標準出力です。プロセスごとのファイル（trace.PID）に取ります。")
    traces = _trace(world, "cat log | grep Error; :")
    seen = "pipe、clone、cloneの順"
    world.fact("pipe-comes-before-the-forks", _pipe_first(traces[0]), seen=seen)
    seen = "左は書き側を1へ、右は読み側を0へdup2した"
    world.fact("dup2-replaces-stdio", _connected(traces), seen=seen)


def _pipe(world: World) -> Session:
    """Open a prompt with a pipe that never waits."""
    prompt = world.python()
    prompt("import os, fcntl, subprocess, socket")
    prompt("read, write = os.pipe()")
    prompt("os.set_blocking(read, False); os.set_blocking(write, False)")
    return prompt


def _fill(prompt: Session) -> str:
    """Write until the pipe is full; return how many bytes it took."""
    prompt("total = 0")
    prompt("while True: total += os.write(write, bytes(1024))", raises="BlockingIOError")
    return prompt("total")


def _writer(world: World, reader: str) -> str:
    """Return the exit code of a command that writes one byte too many for the pipe."""
    done = world.do(
        f"timeout 1 head -c 65537 /dev/zero | {reader}; echo 終了コード ${{PIPESTATUS[0]}}"
    )
    return done.find(r"終了コード (\d+)")[1]


def _capacity(world: World) -> None:
    world.section("capacity", "パイプをいっぱいにする")
    world.say("待つ代わりにエラー（EAGAIN）を返す設定にして、誰も読まないパイプに書き続けます。")
    total = _fill(_pipe(world))
    world.fact("pipe-holds-64-kib", total == "65536", seen=f"{total}バイト")
    world.say(
        "待つ設定（普通のコマンド）なら、1バイト多いだけで止まります。1秒で打ち切ります（124）。"
    )
    code = _writer(world, "sleep 2")
    seen = f"65537バイトを書き終えず、終了コード{code}"
    world.fact("full-pipe-blocks-the-writer", code == "124", seen=seen)


def _boundaries(world: World) -> None:
    world.section("boundaries", "2回書いて1回読む")
    prompt = world.python()
    prompt("import os")
    prompt("read, write = os.pipe()")
    prompt("os.write(write, b'Hello, '); os.write(write, b'world')")
    got = prompt("os.read(read, 100)")
    world.fact("pipe-keeps-no-boundaries", got == "b'Hello, world'", seen=got)


def _close_with_a_child(world: World, options: str, raises: str = "") -> str:
    """Close the write end while a child lives; return what a read says then."""
    prompt = _pipe(world)
    prompt(f"child = subprocess.Popen(['sleep', '600']{options})")
    prompt("os.close(write)")
    answer = prompt("os.read(read, 100)", raises=raises)
    prompt.ask("child.kill()")
    return answer


def _end_of_file(world: World) -> None:
    world.section("end-of-file", "書き側を閉じる")
    world.say(
        "空のバイト列が読めたら、ファイルの終わりです。子のsleepは、パイプを受け継いでいません。"
    )
    answer = _close_with_a_child(world, "")
    world.fact("eof-needs-every-writer-closed", answer == "b''", seen=f"読めたのは{answer}")


def _statuses(world: World, pipeline: str) -> str:
    done = world.do(f"{pipeline}; echo 終了コード ${{PIPESTATUS[@]}}")
    return done.find(r"終了コード (.+)")[1]


def _no_reader(world: World) -> None:
    world.section("no-reader", "読み手が先に終わる")
    world.say("`yes`は、`y`を書き続けます。headは1行読むと終わります。")
    codes = _statuses(world, "yes | head -n 1")
    seen = f"yesの終了コードは{codes.split()[0]}（128+SIGPIPEの13）"
    world.fact("no-reader-means-sigpipe", codes == "141 0", seen=seen)


def _fifo(world: World) -> None:
    world.section("fifo", "名前つきパイプ（FIFO）を開く")
    world.say(
        "FIFOは、親子でないプロセスも名前で開けるパイプです。待たずに書き込み用に開いてみます。"
    )
    world.do("mkfifo fifo")
    prompt = world.python()
    prompt("import os")
    answer = prompt(_OPEN_TO_WRITE, raises="OSError")
    world.fact("fifo-waits-for-a-reader", "Errno 6" in answer, seen="相手がいないのでENXIO")
    world.say("普通に開けば、エラーの代わりに待ちます。読み手が開くと、両方が先へ進みます。")
    prompt.begin("write = os.open('fifo', os.O_WRONLY)")
    reader = world.start("cat fifo")
    prompt.finish()
    prompt("os.write(write, b'through the FIFO\\n'); os.close(write)")
    reader.wait()
    world.show(reader)


def _connect(world: World, family: str, address: str) -> tuple[Session, Session]:
    """Connect two prompts by a socket."""
    here, there = world.python(), world.python()
    for prompt in (here, there):
        prompt.ask("import os, socket, struct")
    there(f"listener = socket.create_server({address}, family=socket.{family})")
    here(f"client = socket.socket(socket.{family})")
    here(f"client.connect({address})")
    there("server, address = listener.accept()")
    return here, there


def _ask_the_kernel(world: World, here: Session, there: Session) -> tuple[str, str]:
    """Return the client's PID, and whom the kernel names to the server."""
    pid = here("os.getpid()")
    world.name("pid", pid)
    return pid, there(_PEER)


def _sockets(world: World) -> None:
    world.section("unix-socket", "UNIXドメインソケットで相手を知り、ファイルを渡す")
    world.say(
        "サーバーとクライアントの2つのPythonを、`sock`という名前のソケットでつなぎます。変数の名前が、どちら側かを表します。"
    )
    here, there = _connect(world, "AF_UNIX", "'sock'")
    world.say("クライアントが自分のPIDを言い、サーバーはカーネルに相手のPIDを尋ねます。")
    pid, named = _ask_the_kernel(world, here, there)
    seen = f"クライアントは{pid}、カーネルの答えも{named}"
    world.fact("kernel-names-the-peer", named == pid, seen=seen)
    world.say("クライアントがファイルを開き、名前を消してから、開いたfdを渡します。")
    _open_a_note(world, here)
    here("socket.send_fds(client, [b'x'], [file])")
    there("data, files, flags, address = socket.recv_fds(server, 1, 1)")
    got = there("os.read(files[0], 100)")
    world.fact("descriptor-can-be-passed", "the note" in got, seen=f"名前が消えても{got}を読めた")


def _open_a_note(world: World, here: Session) -> None:
    world.do("echo the note > note.txt")
    here("file = os.dup2(os.open('note.txt', os.O_RDONLY), 100)")
    world.do("rm note.txt")


def _share(world: World, how: str) -> str:
    """Let two prompts map a file; return what one sees after the other wrote."""
    world.do("truncate --size 4096 board")
    here, there = world.python(), world.python()
    for prompt, name, kind in ((here, "writer", how), (there, "reader", "MAP_SHARED")):
        prompt.ask("import mmap; file = open('board', 'r+b')")
        prompt(f"{name} = mmap.mmap(file.fileno(), 4096, flags=mmap.{kind})")
    here("writer[:5] = b'hello'")
    return there("reader[:5]")


def _shared_memory(world: World) -> None:
    world.section("shared-memory", "同じ領域を2つのプロセスで使う")
    world.say(
        "メモリ上のファイルシステム（tmpfs）のファイル`board`を、書く側と読む側の2つのPythonが写像します。"
    )
    got = _share(world, "MAP_SHARED")
    world.fact("shared-mapping-is-seen", got == "b'hello'", seen=f"もう一方から{got}が見えた")


def _kept(world: World, *after: str) -> bool:
    """Make a segment; return whether it is still listed after the commands."""
    made = world.do("ipcmk --shmem 4096").find(r"(\d+)$")[1]
    for command in after:
        world.do(command.format(made))
    return world.do(_LIST).has(rf"^{made} 4096 0$")


def _system_v(world: World) -> None:
    world.section("system-v", "作り手のいない共有メモリを見る")
    world.say(
        "ipcmkは、共有メモリを作ってすぐ終わるコマンドです。列は、番号、大きさ、使用者数です。"
    )
    kept = _kept(world)
    world.fact("sysv-memory-outlives-its-maker", kept, seen="使用者数0で残っている")


def control(world: World) -> None:
    """Take the causes away: a file for the pipe, readers that read, private memory."""
    _file_for_pipe(world)
    _small_and_read_pipes(world)
    _datagrams(world)
    _forgotten_writer(world)
    _readers(world)
    _other_sockets(world)
    _private_memory(world)
    _removed_segment(world)


def _file_for_pipe(world: World) -> None:
    world.section("file-for-pipe", "パイプの代わりにファイルへ書く")
    traces = _trace(world, "cat log > copy; :")
    why = "ファイルへのリダイレクトなら、パイプは作られない"
    seen = "pipeは0回"
    world.control("pipe-comes-before-the-forks", _pipe_first(traces[0]), why=why, seen=seen)
    why = "標準出力は、パイプではなくファイルに替わる"
    world.control("dup2-replaces-stdio", _connected(traces), why=why, seen="dup2したのはcopyのfd")


def _small_and_read_pipes(world: World) -> None:
    world.section("small-pipe", "パイプを縮める、読む")
    prompt = _pipe(world)
    prompt("fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)")
    total = _fill(prompt)
    why = "64 KiBは既定値で、F_SETPIPE_SZで変えられる"
    world.control("pipe-holds-64-kib", total == "65536", why=why, seen=f"{total}バイト")
    code = _writer(world, "cat > /dev/null")
    why = "読み手が読めば、書き手は待たされない"
    seen = f"65537バイトを書き終え、終了コード{code}"
    world.control("full-pipe-blocks-the-writer", code == "124", why=why, seen=seen)


def _datagrams(world: World) -> None:
    world.section("datagrams", "データグラムのソケットで同じことをする")
    prompt = world.python()
    prompt("import socket")
    prompt("one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)")
    prompt("one.send(b'Hello, '); one.send(b'world')")
    got = prompt("other.recv(100)")
    why = "データグラムなら、1回分ずつ届く"
    world.control("pipe-keeps-no-boundaries", got == "b'Hello, world'", why=why, seen=got)


def _forgotten_writer(world: World) -> None:
    world.section("forgotten-writer", "書き側を、子が受け継いだままにする")
    answer = _close_with_a_child(world, ", pass_fds=[write]", "BlockingIOError")
    why = "書き側を持つプロセスが残っていれば、終わりは届かない"
    seen = "終わりではなくEAGAIN（まだ来るかもしれない）"
    world.control("eof-needs-every-writer-closed", answer == "b''", why=why, seen=seen)


def _readers(world: World) -> None:
    world.section("readers", "読み手がいる")
    codes = _statuses(world, "seq 3 | head -n 10")
    why = "読み手が終わりまで読めば、SIGPIPEは起きない"
    world.control("no-reader-means-sigpipe", codes == "141 0", why=why, seen=f"終了コードは{codes}")
    world.do("mkfifo fifo")
    prompt = world.python()
    prompt("import os")
    prompt("read = os.open('fifo', os.O_RDONLY | os.O_NONBLOCK)")
    answer = prompt(_OPEN_TO_WRITE)
    why = "読み手が開いていれば、すぐ開ける"
    world.control("fifo-waits-for-a-reader", "Errno 6" in answer, why=why, seen="開けた")


def _other_sockets(world: World) -> None:
    world.section("other-sockets", "TCPのソケットで尋ねる、番号だけを渡す")
    here, there = _connect(world, "AF_INET", "('127.0.0.1', 8080)")
    pid, named = _ask_the_kernel(world, here, there)
    why = "TCPでは、相手が別のマシンかもしれず、PIDは分からない"
    world.control("kernel-names-the-peer", named == pid, why=why, seen=f"カーネルの答えは{named}")
    world.say("fdの番号を、文字として送ります。")
    _open_a_note(world, here)
    here("client.sendall(str(file).encode())")
    got = there("os.read(int(server.recv(9)), 100)", raises="OSError")
    why = "番号はプロセスごとのものなので、番号だけ教えても読めない"
    world.control("descriptor-can-be-passed", "the note" in got, why=why, seen=got)


def _private_memory(world: World) -> None:
    world.section("private-memory", "書く側だけ、MAP_PRIVATEにする")
    got = _share(world, "MAP_PRIVATE")
    why = "MAP_PRIVATEでは、書いたページが自分専用の写しになる"
    world.control("shared-mapping-is-seen", got == "b'hello'", why=why, seen=got)


def _removed_segment(world: World) -> None:
    world.section("removed-segment", "ipcrmで消す")
    kept = _kept(world, "ipcrm --shmem-id {}")
    why = "残るのは、消されるまでである"
    world.control("sysv-memory-outlives-its-maker", kept, why=why, seen="一覧にない")
