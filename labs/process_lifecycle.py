"""How a process is born, becomes another program, ends, and who takes care of what remains."""

from __future__ import annotations

from labs.harness import Done, Lab, Session, World, cut, feature, program

LAB = Lab(
    title="プロセスの生成から終了まで",
    chapter="os/process-lifecycle",
    shows="シェルがコマンドを動かすときのシステムコールと、終わったプロセスの行方を見ます。",
    facts={
        "child-becomes-ls": "シェルがcloneした子が、execveでlsになる",
        "wait4-reports-the-child": "親のwait4は、終わった子のPIDを返す",
        "exec-keeps-the-pid": "execの前後でPIDは変わらない",
        "builtin-makes-no-process": "組み込みのcdでは、プロセスが作られない",
        "lone-command-is-not-forked": "bash -cに外部コマンドを1つだけ渡すと、forkせずにexecする",
        "fork-shares-pages": "forkした直後は、親の書き込んだページを写さずに共有する",
        "written-pages-are-copied": "子が書くと、書いたページだけが子の専用になる",
        "offset-is-shared": "forkの前に開いたファイルは、読み書きの位置も親子で共有する",
        "ended-child-stays-zombie": "終わった子は、親がwaitするまでゾンビ（Z）として残る",
        "sigkill-leaves-the-zombie": "ゾンビは、SIGKILLでも消えない",
        "wait-takes-the-status": "waitすると終了ステータスが渡り、ゾンビは消える",
        "orphan-goes-to-init": "親が先に終わった子は、PID 1が引き取る",
        "subreaper-comes-first": "祖先にsubreaperがいれば、PID 1より先に引き取る",
        "states-are-visible": "実行中はR、待ちはS、割り込めない待ちはD、停止中はTと表示される",
    },
    needs=(
        program("bash"),
        program("strace"),
        program("ps", "procps"),
        program("python3"),
        feature("strace"),
    ),
    seconds=2,
    names=(r"\btrace\.(?P<pid>\d+)\b",),
)

_TRACE = "strace -ff --signal=none -e trace=execve,clone,clone3,fork,vfork,wait4,exit_group"
_NO_POINTERS = cut(r"0x[0-9a-f]+( /\* \d+ vars \*/)?")
_CREATES = r"^(clone3?|v?fork)\("

_COW = """\
import mmap, os, sys

size = 32 << 20  # 32 MiB
kind = mmap.MAP_SHARED if "shared" in sys.argv else mmap.MAP_PRIVATE
memory = mmap.mmap(-1, size, flags=kind | mmap.MAP_ANONYMOUS)
memory.write(b"x" * size)


def show(when):
    lines = open("/proc/self/smaps_rollup").read().splitlines()[1:]
    kb = {line.split()[0]: line.split()[1] for line in lines}
    print(when, "共有", kb["Shared_Dirty:"], "kB 専用", kb["Private_Dirty:"], "kB", flush=True)


if os.fork() == 0:
    show("fork直後の子:")
    memory.seek(0)
    memory.write(b"y" * size)
    show("書いた後の子:")
    os._exit(0)
os.wait()
"""

_ORPHAN = """\
import ctypes, os, sys, time

if "subreaper" in sys.argv:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
answer, ask = os.pipe()
if os.fork() == 0:  # 子
    child = os.getpid()
    if os.fork() == 0:  # 孫
        while "stays" not in sys.argv and os.getppid() == child:
            time.sleep(0.01)
        os.write(ask, str(os.getppid()).encode())
        os._exit(0)
    if "stays" in sys.argv:
        os.wait()
    os._exit(0)  # 孫より先に終わる（staysなら後）
print("自分のPIDは", os.getpid())
print("孫の今の親は", os.read(answer, 9).decode())
"""

_UNINTERRUPTIBLE = """\
import ctypes, os, time

clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
CLONE_VFORK, SIGCHLD = 0x4000, 17
if ctypes.CDLL(None).syscall(clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0) == 0:
    time.sleep(600)  # 子。終わるまで親は待たされる
"""


def run(world: World) -> None:
    """Trace a shell, count copied pages, make a zombie and orphans, look at the states."""
    _trace_a_command(world)
    _trace_without_fork(world)
    _keep_the_pid(world)
    _copy_on_write(world)
    _shared_offset(world)
    _zombie(world)
    _orphans(world)
    _states(world)


def _trace(world: World, script: str) -> Done:
    """Trace what a shell does; every process has a file of its own."""
    world.ask("rm -f trace.*")
    world.do(f"{_TRACE} -o trace bash -c '{script}'")
    return world.do("tail -v -n +1 trace.*", show=_NO_POINTERS)


def _trace_a_command(world: World) -> None:
    world.section("trace-a-command", "forkからwaitまでを見る")
    world.say(
        "プロセスに関するシステムコールだけを、プロセスごとのファイル（trace.PID）に取ります。"
    )
    world.say("末尾の`; :`は、bashがforkせずにexecするのを避けるためです。")
    trace = _trace(world, "ls /dev/null; :")
    child = trace.find(rf"{_CREATES}.* = (\d+)$")[2]
    became = trace.has(rf'(?s)==> trace\.{child} <==\nexecve\("\S*/ls"')
    waited = trace.has(rf"^wait4\(.*WIFEXITED.* = {child}$")
    world.fact("child-becomes-ls", became, seen=f"cloneが返した{child}が、execveでlsになった")
    world.fact("wait4-reports-the-child", waited, seen=f"wait4が{child}を返した")


def _trace_without_fork(world: World) -> None:
    world.section("no-new-process", "プロセスが作られない場合を見る")
    world.say("組み込みの`cd`は、シェル自身の中で終わります。")
    trace = _trace(world, "cd /; :")
    world.fact("builtin-makes-no-process", not trace.has(_CREATES), seen=_creations(trace))
    world.say("外部コマンドを1つだけ渡すと、bashは自分がそのままlsになります。")
    trace = _trace(world, "ls /dev/null")
    holds = not trace.has(_CREATES) and len(trace.all("^execve")) == 2
    world.fact("lone-command-is-not-forked", holds, seen=f"execveが2回、{_creations(trace)}")


def _creations(trace: Done) -> str:
    return f"cloneやforkは{len(trace.all(_CREATES))}回"


def _keep_the_pid(world: World) -> None:
    world.section("exec", "execの前後でPIDを比べる")
    world.say("`$$`は、シェル自身のPIDです。execで別のシェルに入れ替わります。")
    before, after = _pids(world, 'echo $$; exec sh -c "echo \\$\\$"')
    world.fact("exec-keeps-the-pid", before == after, seen=f"前{before}、後{after}")


def _pids(world: World, script: str) -> list[str]:
    pids = world.do(f"bash -c '{script}'").lines
    world.name("pid", *pids)
    return pids


def _cow_figures(done: Done) -> list[int]:
    """Return shared and private MiB right after fork, then after writing."""
    pairs = done.all(r"共有 \d+ kB 専用 \d+")
    return [int(word) // 1024 for pair in pairs for word in pair.split() if word.isdigit()]


def _fork_shares(figures: list[int]) -> bool:
    return figures[0] >= 32 and figures[1] < 8


def _writing_copies(figures: list[int]) -> bool:
    return 32 <= figures[3] - figures[1] < 40


def _copy_on_write(world: World) -> None:
    world.section("copy-on-write", "CoWを数字で見る")
    world.say(
        "32 MiBを書き込んでからforkし、変更済みのページの共有と専用の量を、子の中で測ります。"
    )
    world.file("cow.py", _COW)
    figures = _cow_figures(world.do("python3 cow.py"))
    seen = f"共有{figures[0]} MiB、専用{figures[1]} MiB"
    world.fact("fork-shares-pages", _fork_shares(figures), seen=seen)
    seen = f"専用が{figures[1]} MiBから{figures[3]} MiBへ"
    world.fact("written-pages-are-copied", _writing_copies(figures), seen=seen)


def _write_twice(world: World, opening: str) -> str:
    """Let a child and then its parent write a line each; return the file."""
    prompt = world.python()
    prompt("import os")
    prompt("log = os.open('log.txt', os.O_WRONLY | os.O_CREAT)")
    prompt(f"child = os.fork() or ({opening}os.write(log, b'child\\n'), os._exit(0))")
    prompt("done = os.waitpid(child, 0)")
    prompt("os.write(log, b'parent\\n')")
    return world.do("cat log.txt").text


def _shared_offset(world: World) -> None:
    world.section("shared-offset", "ファイルの位置が共有されることを見る")
    world.say("forkの前に開いたファイルへ、子、親の順に書きます。親は子の続きに書きます。")
    text = _write_twice(world, "")
    seen = "、".join(text.split())
    world.fact("offset-is-shared", text == "child\nparent\n", seen=seen)


def _ps(world: World, *pids: str, until: str = "") -> Done:
    return world.do(f"ps -o pid,ppid,stat,comm -p {','.join(pids)}", until=until)


def _dead_child(world: World) -> tuple[Session, str]:
    prompt = world.python()
    prompt("import os, signal")
    prompt("child = os.fork() or os._exit(7)")
    child = prompt.ask("print(child)")
    world.name("pid", child)
    return prompt, child


def _zombie(world: World) -> None:
    world.section("zombie", "ゾンビを作って回収する")
    world.say("子はすぐに7で終わりますが、親（このPython）はまだwaitしていません。")
    prompt, child = _dead_child(world)
    is_zombie = _ps(world, child, until=" Z").has(r" Z\S* ")
    world.fact("ended-child-stays-zombie", is_zombie, seen="STATがZ")
    world.say("SIGKILLを送っても、もう終わっているので何も起きません。")
    prompt("os.kill(child, signal.SIGKILL)")
    world.fact("sigkill-leaves-the-zombie", _ps(world, child).has(r" Z\S* "), seen="STATはZのまま")
    world.say("waitすると、子が返した7を受け取り、記録は消えます。")
    status = prompt("os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])")
    gone = world.do(f"ps -o pid,ppid,stat,comm -p {child}", code=1)
    holds = status == "7" and len(gone.lines) == 1
    world.fact("wait-takes-the-status", holds, seen=f"終了ステータス{status}、psには残らない")


def _orphan(world: World, argument: str = "") -> tuple[str, str]:
    """Return the script's own PID and the parent of its grandchild."""
    done = world.do(f"python3 orphan.py {argument}".rstrip())
    own, parent = done.find(r"自分のPIDは (\d+)")[1], done.find(r"親は (\d+)")[1]
    world.name("pid", own, parent)
    return own, parent


def _orphans(world: World) -> None:
    world.section("orphans", "孤児の引き取り手を見る")
    world.say("子が先に終わり、孫が孤児になります。孫は、親が替わるのを待って報告します。")
    world.file("orphan.py", _ORPHAN)
    _own, parent = _orphan(world)
    world.fact("orphan-goes-to-init", parent == "1", seen=f"孫の親はPID {parent}")
    world.say("今度は、スクリプト自身がsubreaperになると宣言します。")
    own, parent = _orphan(world, "subreaper")
    seen = f"孫の親は、スクリプト自身（PID {own}）"
    world.fact("subreaper-comes-first", parent == own, seen=seen)


def _states(world: World) -> None:
    world.section("states", "状態を見分ける")
    world.say("回り続けるもの、眠るもの、vforkの子を待つもの、止められたものを並べます。")
    world.file("vfork.py", _UNINTERRUPTIBLE)
    commands = ("bash -c 'while :; do :; done'", "sleep 600", "python3 vfork.py", "sleep 601")
    pids = [str(world.start(command).pid) for command in commands]
    world.name("pid", *pids)
    world.do(f"kill -STOP {pids[3]}")
    for pid, state in zip(pids, "RSDT", strict=True):
        world.ask(f"ps -o stat= -p {pid}", until=f"^{state}")
    states = "".join(world.ask(f"ps -o stat= -p {pid}").text[0] for pid in pids)
    _ps(world, *pids)
    world.fact("states-are-visible", states == "RSDT", seen="、".join(states))


def control(world: World) -> None:
    """Take the causes away: a subshell, shared memory, SIGCHLD ignored, a parent that stays."""
    _subshell(world)
    _without_exec(world)
    _shared_memory(world)
    _own_offset(world)
    _ignored_child(world)
    _parent_that_stays(world)


def _subshell(world: World) -> None:
    world.section("subshell", "同じcdを括弧で囲む")
    trace = _trace(world, "(cd /); :")
    why = "括弧で囲むとサブシェルになり、cdでもプロセスが作られる"
    holds = not trace.has(_CREATES)
    world.control("builtin-makes-no-process", holds, why=why, seen=_creations(trace))


def _without_exec(world: World) -> None:
    world.section("without-exec", "execせずに動かす")
    trace = _trace(world, "ls /dev/null; :")
    why = "続きがあれば、bashは自分を残すためにforkする"
    holds = not trace.has(_CREATES)
    world.control("lone-command-is-not-forked", holds, why=why, seen=_creations(trace))
    before, after = _pids(world, 'echo $$; sh -c "echo \\$\\$"; :')
    why = "execと書かなければ、別のプロセスが別のPIDで動く"
    seen = f"bash {before}、sh {after}"
    world.control("exec-keeps-the-pid", before == after, why=why, seen=seen)


def _shared_memory(world: World) -> None:
    world.section("shared-memory", "共有の領域で同じことをする")
    world.file("cow.py", _COW, unseen=True)
    figures = _cow_figures(world.do("python3 cow.py shared"))
    why = "MAP_SHAREDの領域では、子が書いてもページは写されない"
    seen = f"専用は{figures[1]} MiBから{figures[3]} MiBへ"
    world.control("written-pages-are-copied", _writing_copies(figures), why=why, seen=seen)


def _own_offset(world: World) -> None:
    world.section("own-offset", "子がファイルを開き直す")
    text = _write_twice(world, "log := os.open('log.txt', os.O_WRONLY), ")
    why = "子が開き直せば位置は別々になり、親は子の書いたものを上書きする"
    world.control("offset-is-shared", text == "child\nparent\n", why=why, seen=text.strip())


def _ignored_child(world: World) -> None:
    world.section("ignored-child", "SIGCHLDを無視する")
    prompt = world.python()
    prompt("import os, signal")
    prompt("old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
    prompt("child = os.fork() or os._exit(7)")
    child = prompt.ask("print(child)")
    world.name("pid", child)
    world.until(lambda: world.ask(f"ps -p {child}", code=None).code, "子が終わる")
    done = world.do(f"ps -o pid,ppid,stat,comm -p {child}", code=1)
    why = "親がSIGCHLDを無視していれば、ゾンビは残らない"
    world.control("ended-child-stays-zombie", done.has(" Z"), why=why, seen="psには現れない")


def _parent_that_stays(world: World) -> None:
    world.section("parent-that-stays", "子が孫を待つ、subreaperがいない")
    world.file("orphan.py", _ORPHAN, unseen=True)
    _own, parent = _orphan(world, "stays")
    why = "親が生きていれば、孫は引き取られない"
    world.control("orphan-goes-to-init", parent == "1", why=why, seen=f"孫の親はPID {parent}")
    own, parent = _orphan(world)
    why = "subreaperにならなければ、引き取るのはスクリプトではない"
    world.control("subreaper-comes-first", parent == own, why=why, seen=f"孫の親はPID {parent}")
