"""Put processes into every state on purpose, and see what each of them reacts to."""

from __future__ import annotations

from labs.harness import Background, Done, Lab, Session, World, feature, program, trial

_SPLICE = "python3 -c 'import os; os.splice'"
LAB = Lab(
    title="プロセスの状態",
    chapter="os/process-states",
    shows="R、S、D、T、t、Zのプロセスを作り、シグナルと出来事にどう反応するかを見ます。",
    facts={
        "letters-tell-the-state": "psと/proc/PID/statは、R、S、D、T、t、Zを同じ1文字で示す",
        "runnable-looks-like-running": "1つのCPUを2つで取り合うと、CPUを待つほうもRと表示される",
        "event-makes-it-runnable": "Sで待つプロセスは、待っていた出来事が起きるとRになる",
        "stopped-holds-sigterm": "Tの間に送ったSIGTERMは、SIGCONTで動き出すまで効かない",
        "sigkill-ends-stopped": "Tのプロセスは、SIGKILLですぐに終わる",
        "sigcont-leaves-tracing-stop": "tのプロセスは、SIGCONTでは動き出さない",
        "d-holds-handled-signals": "Dの間は、シグナルのハンドラーが動かない",
        "killable-d-dies": "vforkの子を待つDは、SIGKILLで終わる",
        "plain-d-outlives-sigkill": "ロックを待つDは、SIGKILLを送っても終わらない",
        "pending-sigkill-acts-after": "ロックが外れると、保留されていたSIGKILLで終わる",
        "zombie-holds-no-memory": "ゾンビはPIDを持つが、メモリは持たない",
        "load-counts-d": "Dで待つスレッドが100本あると、ロードアベレージが上がる",
    },
    needs=(
        program("bash"),
        program("ps", "procps"),
        program("python3"),
        program("taskset", "util-linux"),
        program("strace"),
        feature("strace"),
        trial("os.splice", _SPLICE, "Python 3.10以降が要ります"),
    ),
    seconds=24,
    limit=90,
    alone=True,
)

_VFORK = """\
import ctypes, os, signal, sys, time

signal.signal(signal.SIGUSR1, lambda *_: print("SIGUSR1を処理した", flush=True))
clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
CLONE_VFORK, SIGCHLD = 0x4000, 17
if "sleep" in sys.argv:
    time.sleep(600)
elif ctypes.CDLL(None).syscall(clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0) == 0:
    time.sleep(600)  # 子。終わるまで親は待たされる
"""

_CHILD = """\
import ctypes, os, signal, sys, time

child = os.fork()
if child == 0:
    if "zombie" in sys.argv:
        os._exit(0)
    if "traced" in sys.argv:
        ctypes.CDLL(None).ptrace(0, 0, 0, 0)  # PTRACE_TRACEME: 親に追跡させる
        os.kill(os.getpid(), signal.SIGUSR1)  # 追跡中は、シグナルが届く直前に止まる
    time.sleep(600)
print(child, flush=True)
time.sleep(600)  # 親。waitしない
"""

_LOAD = """\
import os, socket, sys, threading, time

near, far = socket.socketpair()
out, into = os.pipe()

def load():
    return float(open("/proc/loadavg").read().split()[0])  # 1分の値

if "D" in sys.argv:
    holder = os.fork() or (os.splice(near.fileno(), into, 9), os._exit(0))
    while open(f"/proc/{holder}/stat").read().split()[2] != "S":
        time.sleep(0.01)
for _ in range(100):
    threading.Thread(target=os.read, args=(out, 1), daemon=True).start()
time.sleep(0.5)
os.system(f"ps -L -o stat= -p {os.getpid()} | cut -c1 | sort | uniq -c")
before, end = load(), time.monotonic() + 12
while load() < before + 4 and time.monotonic() < end:
    time.sleep(0.1)
print(f"ロードアベレージ {before:.2f} → {load():.2f}", flush=True)
far.send(b"x")
os._exit(0)
"""

_SPIN = "bash -c 'while :; do :; done'"
_WAIT_THEN_SPIN = "bash -c 'read < gate; while :; do :; done'"


def run(world: World) -> None:
    """Make every state, then try events, SIGSTOP, SIGCONT, SIGKILL and memory on them."""
    world.section("letters", "6つの状態を並べる")
    world.say("状態を1つずつ、わざと作ります。vfork.pyはDを、child.pyはtとZを作ります。")
    world.file("vfork.py", _VFORK)
    world.file("child.py", _CHILD)
    letters = _letters(world, spin=True)
    seen = f"psは{letters[0]}、/proc/PID/statは{letters[1]}"
    world.fact("letters-tell-the-state", letters == ("RSDTtZ", "RSDTtZ"), seen=seen)
    _runnable(world)
    _event(world)
    _stopped(world)
    _tracing_stop(world)
    _vfork(world)
    _lock(world)
    _zombie(world)
    _load(world)


def _state(world: World, pid: object, until: str = "") -> str:
    """Return the state letter, without showing how it was read."""
    return world.ask(f"ps -o stat= -p {pid}", until=until, code=None).text[:1]


def _ps(world: World, *pids: object, columns: str = "pid,stat,wchan:20,comm") -> Done:
    return world.do(f"ps -o {columns} -p {','.join(map(str, pids))}", code=None)


def _start(world: World, command: str, state: str) -> Background:
    """Start a command and wait for its state."""
    process = world.start(command)
    world.name("pid", process.pid)
    _state(world, process.pid, f"^{state}")
    return process


def _child(world: World, kind: str, state: str) -> str:
    """Let child.py make a child; return its PID once it is in the state."""
    parent = world.start(f"python3 child.py {kind}".rstrip())
    child = parent.wait_for(r"^(\d+)$")[1]
    world.name("pid", parent.pid, child)
    _state(world, child, f"^{state}")
    return child


def _end(world: World, *processes: Background) -> None:
    """End processes that need not be seen to end."""
    for process in processes:
        world.ask(f"kill -KILL {process.pid}", code=None)


def _letters(world: World, *, spin: bool) -> tuple[str, str]:
    """Show six processes; return their letters in ps and in /proc."""
    first = _start(world, _SPIN if spin else "sleep 600", "R" if spin else "S")
    rest = _start(world, "sleep 601", "S"), _start(world, "python3 vfork.py", "D")
    stopped = _start(world, "sleep 602", "S")
    world.do(f"kill -STOP {stopped.pid}")
    _state(world, stopped.pid, "^T")
    children = _child(world, "traced", "t"), _child(world, "zombie", "Z")
    pids = [str(p.pid) for p in (first, *rest, stopped)] + list(children)
    world.do(f"ps -o pid,stat,wchan:20,comm -p {','.join(pids)}")
    stat = world.do(f"for p in {' '.join(pids)}; do cut -d ' ' -f 1-3 /proc/$p/stat; done")
    letters = "".join(_state(world, pid) for pid in pids)
    _end(world, first, *rest, stopped)
    return letters, "".join(stat.all(r"\) (\w)$"))


_CPU = "import os; print(min(os.sched_getaffinity(0)))"


def _rivals(world: World, second: str) -> tuple[str, list[str], list[int]]:
    """Let two processes share a CPU: their letters over a second, waits in ms, times on CPU."""
    cpu = world.ask(f"python3 -c '{_CPU}'").text.strip()
    pair = [world.start(f"taskset -c {cpu} {command}") for command in (_SPIN, second)]
    pids = [process.pid for process in pair]
    world.name("pid", *pids)
    _state(world, pids[1], r"^[RS]")
    world.ask(f"ps -o comm= -p {pids[1]}", until="bash|sleep")
    before = _waits(world, pids)
    sample = f"for i in 1 2 3 4 5; do ps -o stat= -p {pids[0]},{pids[1]}; sleep 0.2; done"
    letters = "".join(line[0] for line in world.do(sample).lines)
    _ps(world, *pids, columns="pid,stat,psr,comm")
    waits = [new - old for old, new in zip(before, _waits(world, pids), strict=True)]
    _end(world, *pair)
    return letters, [str(pid) for pid in pids], waits


def _waits(world: World, pids: list[int]) -> list[int]:
    """Return for how many ms each process has waited for a CPU."""
    files = " ".join(f"/proc/{pid}/schedstat" for pid in pids)
    return [int(line.split()[1]) // 10**6 for line in world.ask(f"cat {files}").lines]


def _runnable(world: World) -> None:
    world.section("runnable", "1つのCPUを2つで取り合う")
    world.say("tasksetで同じCPUに縛り、0.2秒おきに5回、2つの状態を見ます。")
    letters, _pids, waits = _rivals(world, _SPIN)
    seen = f"10個ともR。CPU待ちはそれぞれ{waits[0]}ミリ秒と{waits[1]}ミリ秒"
    holds = set(letters) == {"R"} and min(waits) > 0
    world.fact("runnable-looks-like-running", holds, seen=seen)


def _event(world: World) -> None:
    world.section("event", "出来事で目を覚ます")
    world.say("名前付きパイプに1行が届くまで待ち、届いたら計算を始めます。")
    world.do("mkfifo gate")
    waiter = _start(world, _WAIT_THEN_SPIN, "S")
    _ps(world, waiter.pid)
    world.do("echo go > gate")
    state = _state(world, waiter.pid, "^R")
    _ps(world, waiter.pid)
    world.fact("event-makes-it-runnable", state == "R", seen="SからRへ")
    _end(world, waiter)


def _held(world: World, pid: object) -> Done:
    """Show the state and the signals that wait."""
    return world.do(f"grep -E '^(State|SigPnd|ShdPnd)' /proc/{pid}/status")


def _stopped(world: World) -> None:
    world.section("stopped", "止めて、SIGTERMとSIGKILLを送る")
    world.say("ShdPndは、保留中のシグナルです。番号nは下からn番目のビットで、15は4000です。")
    process = _start(world, _SPIN, "R")
    world.do(f"kill -STOP {process.pid}")
    _state(world, process.pid, "^T")
    world.do(f"kill -TERM {process.pid}")
    held = _held(world, process.pid).has(r"^State:\tT[^Z]*ShdPnd:.*4000$")
    world.do(f"kill -CONT {process.pid}")
    code = process.wait().code
    seen = f"TのままSIGTERMを保留し、SIGCONTの後に終了コード{code}で終わった"
    world.fact("stopped-holds-sigterm", held and code == 143, seen=seen)
    world.say("もう一度止めて、今度はSIGKILLを送ります。SIGCONTは送りません。")
    process = _start(world, _SPIN, "R")
    code = _kill_after(world, process, "STOP", "T")
    world.fact("sigkill-ends-stopped", code == 137, seen=f"終了コードは{code}")


def _kill_after(world: World, process: Background, first: str, state: str) -> int:
    """Send a signal, wait for the state it brings, send SIGKILL; return the exit code."""
    world.do(f"kill -{first} {process.pid}")
    _state(world, process.pid, f"^{state}")
    world.do(f"kill -KILL {process.pid}")
    return process.wait().code


def _tracing_stop(world: World) -> None:
    world.section("tracing-stop", "追跡による停止にSIGCONTを送る")
    world.say("straceやgdbが使うptraceで止めます。動かせるのは、追跡している親です。")
    child = _child(world, "traced", "t")
    world.do(f"kill -CONT {child}")
    state = _ps(world, child).find(rf"^ *{child} (\w)")[1]
    traced_by = world.do(f"grep -E '^(State|TracerPid)' /proc/{child}/status")
    still = state == "t" and not traced_by.has("TracerPid:\t0$")
    world.fact("sigcont-leaves-tracing-stop", still, seen=f"STATは{state}のまま")
    world.ask(f"kill -KILL {child}")


def _signal_handled(world: World, way: str, state: str) -> tuple[bool, Background]:
    """Send SIGUSR1, for which there is a handler; return whether it runs in the state."""
    process = _start(world, f"python3 vfork.py {way}".rstrip(), state)
    world.do(f"kill -USR1 {process.pid}")
    world.ask("sleep 0.5")
    _held(world, process.pid)
    return bool(process.text), process


def _vfork(world: World) -> None:
    world.section("vfork", "vforkの子を待つDに、シグナルを送る")
    world.say("SIGUSR1（番号10、ビットは200）には、vfork.pyがハンドラーを付けています。")
    handled, process = _signal_handled(world, "", "D")
    world.say("子を終わらせると、親の待ちが終わります。")
    child = world.ask(f"ps -o pid= --ppid {process.pid}").text.strip()
    world.name("pid", child)
    world.do(f"kill {child}")
    process.wait_for("処理した")
    world.show(process)
    seen = "Dの間は何も印字されず、待ちが終わると処理した"
    world.fact("d-holds-handled-signals", not handled, seen=seen)
    world.say("もう一度Dにして、SIGKILLを送ります。")
    process = _start(world, "python3 vfork.py", "D")
    world.do(f"kill -KILL {process.pid}")
    code = process.wait().code
    world.fact("killable-d-dies", code == 137, seen=f"子を待たずに、終了コード{code}で終わった")


def _waiter(world: World, *, locked: bool) -> tuple[Session, str]:
    """Let a child read an empty pipe, with another holding the pipe's lock or not."""
    prompt = world.python()
    prompt("import os, socket")
    prompt("near, far = socket.socketpair()")
    prompt("out, into = os.pipe()")
    if locked:
        prompt("holder = os.fork() or (os.splice(near.fileno(), into, 9), os._exit(0))")
        holder = prompt.ask("print(holder)")
        _state(world, holder, "^S")
        world.name("pid", holder)
    prompt("waiter = os.fork() or (os.read(out, 9), os._exit(0))")
    waiter = prompt.ask("print(waiter)")
    world.name("pid", waiter)
    _state(world, waiter, "^D" if locked else "^S")
    _ps(world, *([holder, waiter] if locked else [waiter]))
    return prompt, waiter


def _outlives(world: World, waiter: str) -> bool:
    """Send SIGKILL; return whether the process is alive and in D after a while."""
    world.do(f"kill -KILL {waiter}")
    world.ask("sleep 1")
    return _held(world, waiter).has(r"^State:\tD")


def _release(prompt: Session) -> str:
    prompt("sent = far.send(b'x'), os.write(into, b'x')")
    return prompt("os.waitstatus_to_exitcode(os.waitpid(waiter, 0)[1])")


def _lock(world: World) -> None:
    world.section("lock", "ロックを待つDに、SIGKILLを送る")
    world.say("holderはsplice(2)で、パイプのロックを持ったまま、空のソケットを待ちます（S）。")
    world.say("waiterは同じパイプを読もうとして、そのロックを待ちます（D）。")
    prompt, waiter = _waiter(world, locked=True)
    world.say("SIGKILL（番号9、ビットは100）を送り、1秒後に見ます。")
    outlives = _outlives(world, waiter)
    world.fact("plain-d-outlives-sigkill", outlives, seen="SIGKILLを保留したまま、STATはD")
    world.say("ソケットに1バイト送ると、holderがロックを外します。")
    status = _release(prompt)
    seen = f"{status}（シグナル9で終わった）"
    world.fact("pending-sigkill-acts-after", status == "-9", seen=seen)


def _memory(world: World, sig: str, state: str) -> list[int]:
    """Give a child 64 MiB and send it a signal; return its memory in KiB before and after."""
    prompt = world.python()
    prompt("import os, time")
    prompt("child = os.fork() or (block := b'x' * (64 << 20), time.sleep(600))")
    child = prompt.ask("print(child)")
    world.name("pid", child)
    columns = "pid,stat,rss,vsz,comm"
    pattern = rf"^ *{child} \S+ +(\d+)"
    world.ask(f"ps -o {columns} -p {child}", until=rf"^ *{child} S\S* +[6-9]\d{{4}} ")
    before = _ps(world, child, columns=columns).find(pattern)[1]
    world.do(f"kill -{sig} {child}")
    _state(world, child, f"^{state}")
    after = _ps(world, child, columns=columns).find(pattern)[1]
    world.ask(f"kill -KILL {child}")
    return [int(before), int(after)]


def _zombie(world: World) -> None:
    world.section("zombie", "ゾンビのメモリを見る")
    world.say("子に64 MiBを書かせてから終わらせます。RSSの単位はKiBです。親はwaitしません。")
    before, after = _memory(world, "KILL", "Z")
    seen = f"RSSが{before // 1024} MiBから{after} MiBへ。PIDは残る"
    world.fact("zombie-holds-no-memory", after == 0, seen=seen)


def _grown(world: World, state: str) -> tuple[float, str]:
    """Let 100 threads wait in a state; return by how much the load average grew."""
    found = world.do(f"python3 load.py {state}").find(r"ロードアベレージ (\S+) → (\S+)")
    before, after = float(found[1]), float(found[2])
    return after - before, f"{before:.2f}から{after:.2f}へ"


def _load(world: World) -> None:
    world.section("load", "Dがロードアベレージを上げる")
    world.say("100本のスレッドを、上と同じロックで待たせます。CPUは使いません。")
    world.say("4上がるまで、長くて12秒待ちます。しばらく、この機械の値は高いままです。")
    world.file("load.py", _LOAD)
    growth, seen = _grown(world, "D")
    world.fact("load-counts-d", growth >= 4, seen=seen)


def control(world: World) -> None:
    """Take the causes away: no rival, no event, no stop, no trace, no lock, S for D."""
    world.file("vfork.py", _VFORK, unseen=True)
    world.file("child.py", _CHILD, unseen=True)
    world.file("load.py", _LOAD, unseen=True)
    _without_work(world)
    _without_stop(world)
    _in_sleep(world)
    _without_lock(world)
    _without_kill(world)
    _stopped_memory(world)
    _sleeping_load(world)


def _without_work(world: World) -> None:
    world.section("without-work", "計算しない、出来事が起きない")
    letters, _unused = _letters(world, spin=False)
    why = "計算するものがなければ、Rは現れない"
    world.control("letters-tell-the-state", letters == "RSDTtZ", why=why, seen=letters)
    letters, _pids, _waits_ms = _rivals(world, "sleep 600")
    why = "片方が眠れば、取り合いにならず、眠ったほうはRにならない"
    rival = set(letters) == {"R"}
    world.control("runnable-looks-like-running", rival, why=why, seen=letters)
    world.do("mkfifo gate")
    waiter = _start(world, _WAIT_THEN_SPIN, "S")
    world.do("sleep 1")
    state = _ps(world, waiter.pid).find(rf"^ *{waiter.pid} (\w)")[1]
    why = "何も届かなければ、Sのままである"
    world.control("event-makes-it-runnable", state == "R", why=why, seen=state)


def _without_stop(world: World) -> None:
    world.section("without-stop", "止めない、追跡しない")
    process = _start(world, _SPIN, "R")
    world.do(f"kill -TERM {process.pid}")
    process.wait()
    alive = world.ask(f"ps -p {process.pid}", code=None).code == 0
    why = "止まっていなければ、SIGTERMはSIGCONTを待たずに効く"
    world.control("stopped-holds-sigterm", alive, why=why, seen="SIGCONTなしで終わった")
    child = _child(world, "", "S")
    world.do(f"kill -STOP {child}")
    _state(world, child, "^T")
    world.do(f"kill -CONT {child}")
    state = _state(world, child, "^[^T]")
    why = "追跡されていない停止（T）なら、SIGCONTで動き出す"
    world.control("sigcont-leaves-tracing-stop", state in "tT", why=why, seen=f"Tから{state}へ")


def _in_sleep(world: World) -> None:
    world.section("in-sleep", "DではなくSで待つ")
    handled, process = _signal_handled(world, "sleep", "S")
    world.show(process)
    why = "Sなら、ハンドラーは待ちの途中で動く"
    world.control("d-holds-handled-signals", not handled, why=why, seen="待ちの途中で処理した")


def _without_lock(world: World) -> None:
    world.section("without-lock", "ロックを持つものがいない")
    _prompt, waiter = _waiter(world, locked=False)
    outlives = _outlives(world, waiter)
    why = "ロックが空いていれば、データをSで待つので、SIGKILLですぐに終わる"
    world.control("plain-d-outlives-sigkill", outlives, why=why, seen="Z（親のwait待ち）になった")


def _without_kill(world: World) -> None:
    world.section("without-kill", "SIGKILLを送らずにロックを外す")
    prompt, _waiter_pid = _waiter(world, locked=True)
    status = _release(prompt)
    why = "SIGKILLを送っていなければ、ロックが外れると、読んで普通に終わる"
    world.control("pending-sigkill-acts-after", status == "-9", why=why, seen=f"終了コード{status}")


def _stopped_memory(world: World) -> None:
    world.section("stopped-memory", "終わらせずに止める")
    before, after = _memory(world, "STOP", "T")
    why = "止めただけ（T）なら、メモリを持ったままである"
    seen = f"RSSは{before // 1024} MiBから{after // 1024} MiBへ"
    world.control("zombie-holds-no-memory", after == 0, why=why, seen=seen)


def _sleeping_load(world: World) -> None:
    world.section("sleeping-load", "100本をSで待たせる")
    growth, seen = _grown(world, "S")
    why = "Sで待つ100本では、12秒待っても4は上がらない"
    world.control("load-counts-d", growth >= 4, why=why, seen=seen)
