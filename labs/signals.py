"""What a signal does to a process: by default, with a handler, blocked, and as PID 1."""

from __future__ import annotations

from labs.harness import Background, Done, Lab, Session, World, program, trial

LAB = Lab(
    title="シグナルが届くと何が起きるか",
    chapter="os/signals",
    shows="シグナルを送り、既定の動作、ハンドラー、保留、端末のキー、PID 1の違いを見ます。",
    facts={
        "exit-code-is-128-plus-number": "シグナルで終わると、シェルでの終了コードは128＋番号になる",
        "sigterm-allows-cleaning-up": "SIGTERMは捕まえられるので、後始末をしてから終われる",
        "kill-and-stop-take-no-handler": "SIGKILLとSIGSTOPには、ハンドラーを設定できない",
        "hup-reloads-in-place": "SIGHUPで読み直すデーモンは、PIDを変えずに設定を替える",
        "ignoring-survives-exec": "nohupで動かしたコマンドは、SIGHUPで終わらない",
        "blocked-signal-is-pending": "ブロックしたシグナルは、解除するまで保留される",
        "standard-signals-do-not-queue": "同じ標準シグナルは、保留中に何度送っても1回だけ届く",
        "ctrl-c-reaches-the-foreground": "Ctrl-Cは、前面のジョブのすべてのプロセスを終わらせる",
        "ctrl-z-stops-the-job": "Ctrl-Zで、前面のジョブは止まる（T）",
        "sigcont-resumes": "止まったプロセスは、SIGCONTで続きから動く",
        "pid1-ignores-what-it-does-not-handle": "PID 1は、ハンドラーのないSIGTERMでは終わらない",
        "outer-sigkill-ends-pid1": "コンテナの外からのSIGKILLなら、中のPID 1も終わる",
    },
    needs=(
        program("bash"),
        program("ps", "procps"),
        program("python3"),
        trial("PID名前空間", "unshare --pid --fork true", "sudoを付けて動かします"),
    ),
    seconds=7,
)

_WORK = """\
trap 'rm -f work.lock; exit' TERM
touch work.lock
while :; do sleep 0.1; done
"""

_DAEMON = """\
import os, signal, sys, time

def load(*_):
    print("PID", os.getpid(), "設定", open("app.conf").read().strip(), flush=True)

if "plain" not in sys.argv:
    signal.signal(signal.SIGHUP, load)
load()
while True:
    time.sleep(0.1)
"""

_TERMINAL = """\
import os, pty

def start(command):
    child, terminal = pty.fork()  # 端末と、その中の最初のプロセスを作る
    if child == 0:
        os.execlp("bash", "bash", "-mc", command)  # -mはジョブ制御
    return child, terminal
"""


_BLOCK = "old = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.{}])"
_UNBLOCK = "old = signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.{}])"
_GONE = r"(?s)\A(?!.*sleep 601)"


def run(world: World) -> None:
    """End, catch, reload, ignore, block, press keys, and meet PID 1."""
    _exit_codes(world)
    _cleaning_up(world)
    _handlers(world)
    _reload(world)
    _nohup(world)
    _blocked(world)
    _ctrl_c(world)
    _ctrl_z(world)
    _pid1(world)


def _codes(world: World, before: str = "") -> str:
    """Let a shell kill itself with each signal; return the codes that another shell sees."""
    script = f"sh -c '{before}kill -'$s' $$'"
    done = world.do(f"for s in INT KILL TERM; do {script}; echo $s $?; done 2> /dev/null")
    return " ".join(done.all(r"^[A-Z]+ (\d+)$"))


def _exit_codes(world: World) -> None:
    world.section("exit-codes", "終了コードからシグナルを知る")
    world.say("シェルが自分（`$$`）に、番号2のSIGINT、9のSIGKILL、15のSIGTERMを送ります。")
    codes = _codes(world)
    world.fact("exit-code-is-128-plus-number", codes == "130 137 143", seen=codes)


def _killed(world: World, sig: str) -> bool:
    """Signal a worker that has a lock file; return whether the lock is gone."""
    worker = world.start("bash work.sh")
    world.ask("ls", until="work.lock")
    world.name("pid", worker.pid)
    world.do(f"kill -{sig} {worker.pid}")
    worker.wait()
    return not world.do("ls").has("work.lock")


def _cleaning_up(world: World) -> None:
    world.section("cleaning-up", "SIGTERMを捕まえて後始末する")
    world.say("trapは、シェルのハンドラーです。終わる前に、自分のロックファイルを消します。")
    world.file("work.sh", _WORK)
    cleaned = _killed(world, "TERM")
    world.fact("sigterm-allows-cleaning-up", cleaned, seen="work.lockが消えた")


def _refused(prompt: Session, sig: str) -> bool:
    """Return whether the kernel refuses a handler."""
    statement = f"signal.signal(signal.{sig}, print)"
    error = "" if sig == "SIGTERM" else "OSError"
    return "Errno 22" in prompt(statement, raises=error)


def _handlers(world: World) -> None:
    world.section("handlers", "捕まえられないシグナル")
    prompt = world.python()
    prompt("import signal")
    refused = _refused(prompt, "SIGKILL") and _refused(prompt, "SIGSTOP")
    world.fact("kill-and-stop-take-no-handler", refused, seen="どちらもEINVAL（Errno 22）")


def _hang_up(world: World, argument: str = "") -> tuple[bool, Background]:
    """Change the settings and send SIGHUP; return whether the same process has read them."""
    world.do("echo 8080 > app.conf")
    daemon = world.start(f"python3 daemon.py {argument}".rstrip())
    daemon.wait_for("8080")
    world.name("pid", daemon.pid)
    world.do("echo 8081 > app.conf")
    world.do(f"kill -HUP {daemon.pid}")
    world.until(lambda: "8081" in daemon.text or not daemon.running, "読み直すか、終わる")
    world.show(daemon)
    return daemon.running and f"PID {daemon.pid} 設定 8081" in daemon.text, daemon


def _reload(world: World) -> None:
    world.section("reload", "SIGHUPで設定を読み直す")
    world.say("端末のないデーモンでは、SIGHUPを「設定を読み直せ」の合図に使う習わしです。")
    world.file("daemon.py", _DAEMON)
    reloaded, daemon = _hang_up(world)
    seen = f"PID {daemon.pid}のまま、8080から8081へ"
    world.fact("hup-reloads-in-place", reloaded, seen=seen)


def _survives_hang_up(world: World, command: str) -> bool:
    job = world.start(command)
    world.name("pid", job.pid)
    world.ask(f"ps -o comm= -p {job.pid}", until="^sleep$")
    world.do(f"kill -HUP {job.pid}")
    return _survives(world, str(job.pid), job)


def _survives(world: World, pid: str, background: Background) -> bool:
    """Show a process half a second after a signal; return whether it is there."""
    world.ask(f"timeout 0.5 tail --pid={pid} -s 0.1 -f /dev/null", code=None)
    background.running  # noqa: B018 (takes the status of an ended child)
    done = world.do(f"ps -o pid,stat,args -p {pid}", code=None)
    return len(done.lines) == 2


def _nohup(world: World) -> None:
    world.section("nohup", "無視はexecしても続く")
    world.say("nohupは、SIGHUPを無視する設定にしてから、コマンドをexecします。")
    survived = _survives_hang_up(world, "nohup sleep 600")
    world.fact("ignoring-survives-exec", survived, seen="SIGHUPの後も動いている")


def _wait_for_unblocking(world: World, first: str) -> tuple[tuple[str, str, str], str]:
    """Send a signal after a statement; return what was called and pending, also in words."""
    prompt = world.python()
    prompt("import os, signal")
    prompt("count = 0")
    prompt("def handler(*_): global count; count += 1")
    prompt("old = signal.signal(signal.SIGUSR1, handler)")
    prompt(first)
    prompt("os.kill(os.getpid(), signal.SIGUSR1)")
    before, pending = prompt("count"), prompt("len(signal.sigpending())")
    prompt(_UNBLOCK.format("SIGUSR1"))
    after = prompt("count")
    words = f"解除する前は呼び出し{before}回と保留{pending}、解除した後は呼び出し{after}回"
    return (before, pending, after), words


def _send_three(world: World, number: str) -> str:
    """Send a blocked signal three times; return how many times it is received."""
    prompt = world.python()
    prompt("import os, signal")
    prompt(_BLOCK.format(number))
    prompt(f"for _ in range(3): os.kill(os.getpid(), signal.{number})")
    prompt("received = 0")
    prompt(f"while signal.sigtimedwait([signal.{number}], 0): received += 1")
    return prompt("received")


def _blocked(world: World) -> None:
    world.section("blocked", "ブロックしてから送る")
    world.say("ハンドラーは、呼ばれた回数を数えます。ブロックしてから自分に送り、後で解除します。")
    figures, seen = _wait_for_unblocking(world, _BLOCK.format("SIGUSR1"))
    world.fact("blocked-signal-is-pending", figures == ("0", "1", "1"), seen=seen)
    world.say("ブロックしたまま3回送り、保留中のものを1つずつ受け取ります。")
    received = _send_three(world, "SIGUSR1")
    seen = f"3回送って{received}回"
    world.fact("standard-signals-do-not-queue", received == "1", seen=seen)


def _terminal(world: World, command: str, ready: str) -> tuple[Session, str]:
    """Run a command on a terminal; return a prompt that can press keys, and the session's id."""
    prompt = world.python()
    prompt("import os, terminal")
    prompt(f'shell, keys = terminal.start("{command}")')
    shell = prompt.ask("print(shell)")
    world.name("pid", shell)
    _on_terminal(world, shell, ready)
    return prompt, shell


def _on_terminal(world: World, shell: str, until: str = "") -> Done:
    return world.do(f"ps -o pid,pgid,tpgid,stat,args --sid {shell}", until=until, code=None)


def _press_ctrl_c(world: World, command: str) -> bool:
    """Press Ctrl-C on a terminal; return whether no sleep is left."""
    ready = r"(?s)(?=.*S\+? +sleep 600).*S\+ +sleep 601"
    prompt, shell = _terminal(world, command, ready)
    prompt(r"os.write(keys, b'\x03')  # Ctrl-C")
    prompt.ask("os.waitpid(shell, 0)")
    return not _on_terminal(world, shell, _GONE).has("sleep")


def _ctrl_c(world: World) -> None:
    world.section("ctrl-c", "端末でCtrl-Cを押す")
    world.say("端末（pty）を作り、その中で2つのsleepをパイプでつないだジョブを動かします。")
    world.say("STATの`+`は前面のジョブです。PGID（ジョブの番号）がTPGID（端末の前面）と同じです。")
    world.file("terminal.py", _TERMINAL)
    all_gone = _press_ctrl_c(world, "sleep 600 | sleep 601; read")
    world.fact(
        "ctrl-c-reaches-the-foreground", all_gone, seen="2つのsleepも、待っていたシェルも終わった"
    )


def _job(world: World, command: str) -> tuple[Session, str, str]:
    """Run a command on a terminal; return its prompt, its session, and the PID of its sleep."""
    prompt, shell = _terminal(world, command, r"S\+ +sleep 600")
    pid = world.ask(f"pgrep --session {shell} -x sleep").text.strip()
    return prompt, shell, pid


def _press_ctrl_z(world: World, prompt: Session, shell: str, pid: str) -> bool:
    """Press Ctrl-Z; return whether the job stopped within half a second."""
    prompt(r"os.write(keys, b'\x1a')  # Ctrl-Z")
    world.ask(f"for _ in 1 2 3 4 5; do ps -o stat= -p {pid} | grep -q T || sleep 0.1; done")
    return _on_terminal(world, shell).has(r" T +sleep")


def _moves(world: World, sig: str, pid: str) -> bool:
    """Signal a stopped process; return whether it goes on."""
    world.do(f"kill -{sig} {pid}")
    world.ask(f"for _ in 1 2 3 4 5; do ps -o stat= -p {pid} | grep -q T && sleep 0.1; done; :")
    return not world.do(f"ps -o pid,stat,args -p {pid}").has(rf"{pid} T")


def _ctrl_z(world: World) -> None:
    world.section("ctrl-z", "Ctrl-Zで止め、SIGCONTで続ける")
    prompt, shell, pid = _job(world, "sleep 600; read")
    stopped = _press_ctrl_z(world, prompt, shell, pid)
    world.fact("ctrl-z-stops-the-job", stopped, seen="STATがT")
    world.fact("sigcont-resumes", _moves(world, "CONT", pid), seen="STATがTからSへ")


def _container(world: World, command: str, name: str) -> tuple[Background, str]:
    """Run a command as PID 1 of a new namespace; return it and its PID out here."""
    outer = world.start(f"unshare --pid --fork --kill-child {command}")
    pid = world.ask(f"pgrep -P {outer.pid} -x {name}", until=r"^\d+$").text.strip()
    world.name("pid", pid)
    world.do(f"grep NSpid /proc/{pid}/status")
    return outer, pid


def _pid1(world: World) -> None:
    world.section("pid1", "コンテナのPID 1に送る")
    world.say("コンテナと同じPID名前空間を作ります。NSpidの右端が、その中でのPIDです。")
    outer, pid = _container(world, "sleep 600", "sleep")
    world.do(f"kill -TERM {pid}")
    seen = "SIGTERMの後も動いている"
    world.fact("pid1-ignores-what-it-does-not-handle", _survives(world, pid, outer), seen=seen)
    world.do(f"kill -KILL {pid}")
    ended = not _survives(world, pid, outer)
    world.fact("outer-sigkill-ends-pid1", ended, seen="psに現れない")


def control(world: World) -> None:
    """Take the causes away: other handlers, other signals, other places."""
    _caught_codes(world)
    _killed_outright(world)
    _catchable(world)
    _plain_daemon(world)
    _without_nohup(world)
    _unblocked(world)
    _real_time(world)
    _background_job(world)
    _ignored_stop(world)
    _handling_pid1(world)


def _caught_codes(world: World) -> None:
    world.section("caught", "捕まえられるものは捕まえる")
    codes = _codes(world, 'trap "exit 0" INT TERM; ')
    why = "捕まえて自分で終われば、終了コードは自分で決められる。SIGKILLだけは捕まらない"
    holds = codes == "130 137 143"
    world.control("exit-code-is-128-plus-number", holds, why=why, seen=codes)


def _killed_outright(world: World) -> None:
    world.section("killed", "SIGTERMの代わりにSIGKILLを送る")
    world.file("work.sh", _WORK, unseen=True)
    cleaned = _killed(world, "KILL")
    why = "SIGKILLでは後始末ができず、ロックファイルが残る"
    world.control("sigterm-allows-cleaning-up", cleaned, why=why, seen="work.lockが残った")


def _catchable(world: World) -> None:
    world.section("catchable", "ほかのシグナルのハンドラー")
    prompt = world.python()
    prompt("import signal")
    refused = _refused(prompt, "SIGTERM")
    why = "SIGTERMなら、ハンドラーを設定できる"
    world.control("kill-and-stop-take-no-handler", refused, why=why, seen="設定できた")


def _plain_daemon(world: World) -> None:
    world.section("plain-daemon", "SIGHUPのハンドラーを設定しない")
    world.file("daemon.py", _DAEMON, unseen=True)
    reloaded, daemon = _hang_up(world, "plain")
    why = "SIGHUPの既定の動作は、終了である"
    seen = f"終了コード{daemon.wait().code}"
    world.control("hup-reloads-in-place", reloaded, why=why, seen=seen)


def _without_nohup(world: World) -> None:
    world.section("without-nohup", "nohupを付けない")
    survived = _survives_hang_up(world, "sleep 600")
    why = "無視していなければ、SIGHUPで終わる"
    world.control("ignoring-survives-exec", survived, why=why, seen="psに現れない")


def _unblocked(world: World) -> None:
    world.section("unblocked", "ブロックせずに送る")
    figures, seen = _wait_for_unblocking(world, _UNBLOCK.format("SIGUSR1"))
    why = "ブロックしていなければ、すぐにハンドラーが呼ばれる"
    world.control("blocked-signal-is-pending", figures == ("0", "1", "1"), why=why, seen=seen)


def _real_time(world: World) -> None:
    world.section("real-time", "リアルタイムシグナルを3回送る")
    received = _send_three(world, "SIGRTMIN")
    why = "リアルタイムシグナルは、送った回数だけ並んで届く"
    seen = f"3回送って{received}回"
    world.control("standard-signals-do-not-queue", received == "1", why=why, seen=seen)


def _background_job(world: World) -> None:
    world.section("background-job", "1つを背面のジョブにする")
    world.file("terminal.py", _TERMINAL, unseen=True)
    all_gone = _press_ctrl_c(world, "sleep 600 & sleep 601; read")
    why = "背面のジョブには、Ctrl-Cは届かない"
    seen = "sleep 600が残った"
    world.control("ctrl-c-reaches-the-foreground", all_gone, why=why, seen=seen)


def _ignored_stop(world: World) -> None:
    world.section("ignored-stop", "SIGTSTPを無視する、SIGCONTを送らない")
    prompt, shell, pid = _job(world, "trap '' TSTP; sleep 600; read")
    stopped = _press_ctrl_z(world, prompt, shell, pid)
    why = "SIGTSTPは無視できる（無視できないのはSIGSTOP）"
    world.control("ctrl-z-stops-the-job", stopped, why=why, seen="STATはS+のまま")
    world.say("SIGSTOPで止めてから、SIGCONTの代わりにSIGTERMを送ります。")
    world.do(f"kill -STOP {pid}")
    world.ask(f"ps -o stat= -p {pid}", until="^T")
    why = "SIGTERMでは動き出さず、SIGCONTが来るまで保留される"
    world.control("sigcont-resumes", _moves(world, "TERM", pid), why=why, seen="STATはTのまま")


def _handling_pid1(world: World) -> None:
    world.section("handling-pid1", "ハンドラーのあるPID 1、中からのSIGKILL")
    world.file("work.sh", _WORK, unseen=True)
    outer, pid = _container(world, "bash work.sh", "bash")
    world.ask("ls", until="work.lock")
    world.do(f"kill -TERM {pid}")
    why = "ハンドラーを設定していれば、PID 1にもSIGTERMが届く"
    seen = "後始末をして終わった"
    survived = _survives(world, pid, outer)
    world.control("pid1-ignores-what-it-does-not-handle", survived, why=why, seen=seen)
    world.say("今度は、コンテナの中（nsenter）から、そのPID 1にSIGKILLを送ります。")
    outer, pid = _container(world, "sleep 600", "sleep")
    world.do(f"nsenter --target {pid} --pid kill -KILL 1")
    why = "同じ名前空間の中からは、SIGKILLでもPID 1は終わらない"
    ended = not _survives(world, pid, outer)
    world.control("outer-sigkill-ends-pid1", ended, why=why, seen="動いている")
