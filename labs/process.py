"""What a process is: one running copy of a program, with memory, files and numbers of its own."""

from __future__ import annotations

from labs.harness import Background, Done, Lab, World, program, trial

LAB = Lab(
    title="プロセスの持ち物と番号",
    chapter="os/process",
    shows="同じプログラムの2つのプロセスを比べ、持ち物、名前、組、名前空間ごとのPIDを見ます。",
    facts={
        "one-program-two-processes": "同じプログラムを2回起動すると、別々のPIDのプロセスになる",
        "same-number-other-file": "同じ番号のfdが、プロセスごとに違うファイルを指す",
        "memory-is-separate": "同じ番地に書いても、もう一方のプロセスの値は変わらない",
        "exec-replaces-the-program": "execすると、同じPIDのまま、exeとコードの領域が替わる",
        "exec-keeps-the-files": "開いていたfdは、execの後も同じファイルを指す",
        "comm-is-cut-at-15": "commは、実行したファイルの名前の先頭15バイトである",
        "pgrep-needs-f": "16文字以上の名前は、pgrepでは見つからず、pgrep -fなら見つかる",
        "pipeline-is-one-group": "1つのパイプラインは、1つのプロセスグループになる",
        "setsid-leaves-the-session": "setsidで動かすと、シェルとは別のセッションになる",
        "one-pid-per-namespace": "同じプロセスが、PID名前空間ごとに違うPIDを持つ",
    },
    needs=(
        program("bash"),
        program("ps", "procps"),
        program("pgrep", "procps"),
        program("python3"),
        program("setsid", "util-linux"),
        trial("PID名前空間", "unshare --pid --fork true", "sudoを付けて動かします"),
    ),
    seconds=3,
)

_KEEP = """\
import os, sys, time

log = open(sys.argv[1], "w")  # 空いている一番小さい番号のfdになる
if "fork" in sys.argv:
    os.fork()
time.sleep(600)
"""

_MEMORY = """\
import ctypes, os, sys, threading

number = ctypes.c_int(1)


def show(who):
    place = f"番地 {ctypes.addressof(number):#x}"
    print(who, "PID", os.getpid(), place, "値", number.value, flush=True)


def write():
    number.value = 2
    show("書いた側:")


if "thread" in sys.argv:
    other = threading.Thread(target=write)
    other.start()
    other.join()
elif os.fork() == 0:
    write()
    os._exit(0)
else:
    os.wait()
show("もとの側:")
"""

_NAMED = """\
#!/usr/bin/python3
import time
time.sleep(600)
"""

_CODE = """awk '$2 ~ /x/ && $6 ~ "^/" && !seen[$6]++ {print $6}'"""
_LONG, _SHORT = "collect-metrics-daily", "collect"


def run(world: World) -> None:
    """Compare two processes of one program, then follow exec, names, groups and namespaces."""
    _two_processes(world)
    _memory(world)
    _exec(world)
    _names(world)
    _groups(world)
    _session(world)
    _namespace(world)


def _keep(world: World, arguments: str) -> str:
    """Start a process that holds a file open; return its PID."""
    process = world.start(f"python3 keep.py {arguments}")
    world.name("pid", process.pid)
    _descriptor(world, str(process.pid))
    return str(process.pid)


def _descriptor(world: World, pid: str) -> str:
    """Return what fd 3 of a process points at, once it is open."""
    return world.ask(f"readlink /proc/{pid}/fd/3", until="log$", code=None).text.strip()


def _same_program(world: World, first: str, second: str) -> bool:
    exe = world.do(f"readlink /proc/{first}/exe /proc/{second}/exe").lines
    return exe[0] == exe[1]


def _other_files(world: World, first: str, second: str) -> bool:
    files = world.do(f"readlink /proc/{first}/fd/3 /proc/{second}/fd/3").lines
    return files[0] != files[1]


def _two_processes(world: World) -> None:
    world.section("two-processes", "同じプログラムを2回起動する")
    world.file("keep.py", _KEEP)
    first, second = _keep(world, "a.log"), _keep(world, "b.log")
    world.do(f"ps -o pid,ppid,user,stat,args -p {first},{second}")
    world.say("exeは、実行しているプログラムのファイルです。")
    same = _same_program(world, first, second)
    seen = f"PID {first}と{second}、exeは同じファイル"
    world.fact("one-program-two-processes", same and first != second, seen=seen)
    world.say("cmdlineは引数、cwdはカレントディレクトリです。")
    world.do(f"tr '\\0' ' ' < /proc/{second}/cmdline; echo; readlink /proc/{second}/cwd")
    world.say("fdの3番を比べます。")
    other = _other_files(world, first, second)
    world.fact("same-number-other-file", other, seen="fd 3は、a.logとb.log")


def _untouched(world: World, argument: str = "") -> bool:
    """Write in one place, read the same address in the other; return whether it is unchanged."""
    done = world.do(f"python3 memory.py {argument}".rstrip())
    places = done.all(r"番地 \S+")
    return places[0] == places[1] and done.has(r"もとの側: .* 値 1$")


def _memory(world: World) -> None:
    world.section("memory", "同じ番地に書く")
    world.say("forkした子が、親と同じ番地の変数に2を書きます。")
    world.file("memory.py", _MEMORY)
    untouched = _untouched(world)
    world.fact("memory-is-separate", untouched, seen="番地は同じで、値は2と1")


def _look(world: World, pid: str) -> tuple[str, str, str]:
    """Show program, file and code of a process; return them."""
    exe, log = world.do(f"readlink /proc/{pid}/exe /proc/{pid}/fd/3").lines
    code = world.do(f"{_CODE} /proc/{pid}/maps | head -1").text.strip()
    return exe, log, code


def _around(world: World, command: str) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    """Look at a process before and after it goes on to its last command."""
    world.do("mkfifo go")
    process = world.start(command)
    world.name("pid", process.pid)
    pid = str(process.pid)
    _descriptor(world, pid)
    before = _look(world, pid)
    world.do("echo > go")
    world.ask("ps -eo args", until=r"^sleep 600$")
    return before, _look(world, pid)


def _exec(world: World) -> None:
    world.section("exec", "execの前後を比べる")
    world.say(
        "bashがファイルを開き、合図を受けるとsleepをexecします。exe、fdの3番、コードの順です。"
    )
    before, after = _around(world, "bash -c 'exec 3> kept.log; read -r < go; exec sleep 600'")
    replaced = before[0] != after[0] and (before[0], after[0]) == (before[2], after[2])
    seen = f"同じPIDで、{before[0]}から{after[0]}へ"
    world.fact("exec-replaces-the-program", replaced, seen=seen)
    world.fact("exec-keeps-the-files", before[1] == after[1], seen="fd 3はkept.logのまま")


def _named(world: World, name: str) -> tuple[str, str]:
    """Start a script by its own name; return its PID and its comm."""
    world.do(f"chmod +x {name}")
    process = world.start(f"./{name}")
    world.name("pid", process.pid)
    world.ask(f"cat /proc/{process.pid}/comm", until="^coll")
    return str(process.pid), world.do(f"cat /proc/{process.pid}/comm").text.strip()


def _is_cut(name: str, comm: str) -> bool:
    return comm == name[:15] and comm != name


def _hidden(world: World, name: str, pid: str) -> bool:
    """Return whether pgrep finds a process by its arguments only."""
    by_name = world.do(f"pgrep {name} 2>&1", code=None).lines
    by_arguments = world.do(f"pgrep -f {name}").lines
    return pid not in by_name and pid in by_arguments


def _names(world: World) -> None:
    world.section("names", "長い名前のプロセスを探す")
    world.file(_LONG, _NAMED)
    pid, comm = _named(world, _LONG)
    world.fact("comm-is-cut-at-15", _is_cut(_LONG, comm), seen=comm)
    hidden = _hidden(world, _LONG, pid)
    world.fact("pgrep-needs-f", hidden, seen="pgrepでは0個、pgrep -fでは1個")
    world.say("同じファイルをpython3に渡すと、実行したファイルはpython3なので、commもpython3です。")
    process = world.start(f"python3 {_LONG}")
    world.name("pid", process.pid)
    world.do(f"cat /proc/{process.pid}/comm", until="^python3")


def _children(world: World, command: str, *sleeps: int) -> tuple[str, Done]:
    """Start a shell; return its PID and the list of itself and its children."""
    shell = world.start(command)
    world.name("pid", shell.pid)
    pid = str(shell.pid)
    listing = f"ps -o pid,ppid,pgid,sid,args --ppid {pid} -p {pid}"
    return pid, world.do(listing, until="".join(rf"(?=[\s\S]*\d sleep {n}$)" for n in sleeps))


def _column(done: Done, args: str, column: int) -> str:
    return next(line.split()[column] for line in done.lines if line.endswith(f" {args}"))


def _grouped(done: Done) -> bool:
    """Return whether the pipeline has a group of its own, apart from the other job."""
    left, right, other = (_column(done, f"sleep 60{n}", 2) for n in (0, 1, 2))
    return left == right != other


def _groups(world: World) -> None:
    world.section("groups", "2つのジョブを動かす")
    world.say("`set -m`でジョブ制御を有効にします。対話的なシェルでは、ふつう初めから有効です。")
    command = "bash -c 'set -m; sleep 600 | sleep 601 & sleep 602 & wait'"
    _shell, done = _children(world, command, 600, 601, 602)
    world.fact("pipeline-is-one-group", _grouped(done), seen="600と601はPGIDが同じ、602は別")


def _apart(done: Done, shell: str) -> bool:
    return _column(done, "sleep 603", 3) == _column(done, "sleep 603", 0) != shell


def _session(world: World) -> None:
    world.section("session", "setsidで動かす")
    world.say("同じシェルから、setsidを付けたものと付けないものを動かします。")
    command = "bash -c 'setsid sleep 603 & sleep 604 & wait'"
    shell, done = _children(world, command, 603, 604)
    seen = "603のSIDは自分のPID、604のSIDはシェルのPID"
    world.fact("setsid-leaves-the-session", _apart(done, shell), seen=seen)


def _numbers(world: World, pid: str) -> list[str]:
    """Return the PIDs of one process, from the outer namespace inwards."""
    return world.do(f"grep NSpid /proc/{pid}/status").text.split()[1:]


def _namespace(world: World) -> None:
    world.section("namespace", "PID名前空間の内と外で数える")
    outer: Background = world.start("unshare --pid --fork --kill-child sleep 605")
    pid = world.ask(f"pgrep -P {outer.pid} -x sleep", until=r"^\d+$").text.strip()
    world.name("pid", pid)
    world.say("NSpidは、左が実験の名前空間での番号、右が中での番号です。")
    numbers = _numbers(world, pid)
    seen = f"外では{pid}、中では{numbers[-1]}"
    world.fact("one-pid-per-namespace", numbers == [pid, "1"], seen=seen)


def control(world: World) -> None:
    """Take the causes away: another program, a thread, no exec, no job control, no namespace."""
    _relatives(world)
    _thread(world)
    _without_exec(world)
    _closed_on_exec(world)
    _short_name(world)
    _without_job_control(world)
    _without_setsid(world)
    _without_namespace(world)


def _relatives(world: World) -> None:
    world.section("relatives", "別のプログラム、forkした子")
    world.file("keep.py", _KEEP, unseen=True)
    first = _keep(world, "a.log fork")
    sleeper = world.start("sleep 600")
    world.name("pid", sleeper.pid)
    world.ask(f"cat /proc/{sleeper.pid}/comm", until="^sleep$")
    same = _same_program(world, first, str(sleeper.pid))
    why = "別のプログラムなら、exeは別のファイルを指す"
    world.control("one-program-two-processes", same, why=why, seen="exeは2つ")
    child = world.ask(f"pgrep -P {first}", until=r"^\d+$").text.strip()
    world.name("pid", child)
    other = _other_files(world, first, child)
    why = "開いてからforkした子は、同じファイルを指すfdを受け継ぐ"
    world.control("same-number-other-file", other, why=why, seen="どちらもa.log")


def _thread(world: World) -> None:
    world.section("thread", "forkの代わりにスレッドで書く")
    world.file("memory.py", _MEMORY, unseen=True)
    untouched = _untouched(world, "thread")
    why = "同じプロセスのスレッドなら、同じメモリなので値が変わる"
    world.control("memory-is-separate", untouched, why=why, seen="どちらも2")


def _without_exec(world: World) -> None:
    world.section("without-exec", "execを書かずに動かす")
    before, after = _around(world, "bash -c 'exec 3> kept.log; read -r < go; sleep 600; :'")
    why = "execしなければ、sleepは子として動き、シェルのexeは変わらない"
    replaced = before[0] != after[0]
    world.control("exec-replaces-the-program", replaced, why=why, seen=f"exeは{after[0]}のまま")


def _closed_on_exec(world: World) -> None:
    world.section("close-on-exec", "FD_CLOEXECを付けて開く")
    world.say("Pythonのopenは、fdにFD_CLOEXECを付けます。")
    script = "import os; log = open('kept.log', 'w'); os.execlp('sleep', 'sleep', '601')"
    process = world.start(f'python3 -c "{script}"')
    world.name("pid", process.pid)
    world.ask(f"cat /proc/{process.pid}/comm", until="^sleep$")
    kept = world.do(f"readlink /proc/{process.pid}/fd/3", code=None).text != ""
    why = "FD_CLOEXECの付いたfdは、execで閉じられる"
    world.control("exec-keeps-the-files", kept, why=why, seen="fd 3はない")


def _short_name(world: World) -> None:
    world.section("short-name", "短い名前にする")
    world.file(_SHORT, _NAMED, unseen=True)
    pid, comm = _named(world, _SHORT)
    why = "15バイトまでの名前は、切られない"
    world.control("comm-is-cut-at-15", _is_cut(_SHORT, comm), why=why, seen=comm)
    why = "commに全部が入るので、pgrepだけで見つかる"
    hidden = _hidden(world, _SHORT, pid)
    world.control("pgrep-needs-f", hidden, why=why, seen="どちらでも1個")


def _without_job_control(world: World) -> None:
    world.section("without-job-control", "ジョブ制御なしで動かす")
    command = "bash -c 'sleep 600 | sleep 601 & sleep 602 & wait'"
    _shell, done = _children(world, command, 600, 601, 602)
    why = "ジョブ制御がなければ、全員がシェルと同じグループのままになる"
    world.control("pipeline-is-one-group", _grouped(done), why=why, seen="PGIDは1種類")


def _without_setsid(world: World) -> None:
    world.section("without-setsid", "setsidを付けずに動かす")
    shell, done = _children(world, "bash -c 'sleep 603 & sleep 604 & wait'", 603, 604)
    why = "付けなければ、親のセッションを受け継ぐ"
    seen = "603のSIDも、シェルのPID"
    world.control("setsid-leaves-the-session", _apart(done, shell), why=why, seen=seen)


def _without_namespace(world: World) -> None:
    world.section("without-namespace", "名前空間を分けずに動かす")
    process = world.start("sleep 605")
    world.name("pid", process.pid)
    numbers = _numbers(world, str(process.pid))
    why = "名前空間を分けなければ、番号は1つである"
    holds = numbers == [str(process.pid), "1"]
    world.control("one-pid-per-namespace", holds, why=why, seen="NSpidは1つ")
