"""What threads share, what each has of its own, what they cost and how they collide."""

from __future__ import annotations

from labs.harness import Done, Lab, World, cut, feature, program

LAB = Lab(
    title="スレッドが共有するものと、ぶつかるとき",
    chapter="os/threads",
    shows="スレッドの作られ方をforkと比べ、共有するもの、費用、更新の失われ方を見ます。",
    facts={
        "creation-is-a-system-call": "スレッドも、clone系のシステムコールで作られる",
        "flags-share-the-resources": "スレッドは、CLONE_VMなどの指定で親の資源を共有する",
        "stack-per-thread": "スタックは、スレッドごとに別の場所にある",
        "task-lists-threads": "/proc/PID/taskには、スレッドごとにTIDが1つ並ぶ",
        "main-tid-is-the-pid": "最初のスレッドのTIDは、PIDと同じである",
        "variables-are-shared": "あるスレッドが書き換えた変数は、ほかのスレッドからもそう見える",
        "descriptors-are-shared": "あるスレッドが閉じたfdは、どのスレッドにも閉じている",
        "fork-cost-grows": "forkのCPU時間は、使っているメモリが多いほど増える",
        "thread-cost-stays": "スレッドを作るCPU時間は、使っているメモリの量にほとんどよらない",
        "unlocked-update-is-lost": "読んでから書くまでに別のスレッドが書くと、その更新は失われる",
        "free-lock-needs-no-system-call": "空いているロックを取るのに、システムコールは要らない",
        "opposite-order-deadlocks": "2つのロックを逆の順に取り合うと、どちらも2つ目を取れない",
        "one-crash-ends-all": "1つのスレッドがSIGSEGVを起こすと、プロセス全体が終わる",
    },
    needs=(
        program("bash"),
        program("strace"),
        program("ps", "procps"),
        program("python3"),
        feature("strace"),
    ),
    seconds=6,
    alone=True,
)

_TRACE = "strace -f --signal=none -e trace=clone,clone3,fork,vfork -o trace"
_NO_POINTERS = cut(
    r", child_tid=.*?(?=, stack=)", r", stack_size=.*?\)(?= = )", r", child_tidptr=0x\w+"
)
_TWO_THREADS = """\
import threading

all_here = threading.Barrier(3)
for _ in range(2):
    threading.Thread(target=all_here.wait).start()
all_here.wait()
"""
_TWO_PROCESSES = """\
import os

for _ in range(2):
    if os.fork() == 0:
        os._exit(0)
"""
_TWO_COROUTINES = """\
import asyncio

async def main():
    await asyncio.gather(asyncio.sleep(0.1), asyncio.sleep(0.1))

asyncio.run(main())
"""
_SHARED = {"VM", "FS", "FILES", "SIGHAND", "THREAD"}

_COST = """\
import mmap, os, sys, threading, time

memory = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)

def fork():
    child = os.fork() or os._exit(0)
    os.waitpid(child, 0)

def thread():
    new = threading.Thread(target=int)
    new.start()
    new.join()

def once(make):  # 1回あたりの自分のCPU時間
    begin = time.process_time()
    for _ in range(5):
        make()
    return (time.process_time() - begin) * 1e6 / 5

def cost(make):  # ほかの負荷に乱されなかった回を取る
    return min(once(make) for _ in range(10))

def show(when):
    print(f"{when} fork {cost(fork):.0f}、スレッド {cost(thread):.0f}（マイクロ秒）")

show("256 MiBを使う前:")
if "unused" not in sys.argv:
    memory.write(b"x" * len(memory))
show("256 MiBを使った後:")
"""

_COUNT = """\
import contextlib, sys, threading

count = 0
lock = threading.Lock() if "lock" in sys.argv else contextlib.nullcontext()
a_has_read, b_is_done = threading.Event(), threading.Event()

def a():
    global count
    with lock:
        old = count
        a_has_read.set()
        b_is_done.wait(1)  # ここでBに順番が回る
        count = old + 1

def b():
    global count
    a_has_read.wait()
    with lock:
        count = count + 1
    b_is_done.set()

threads = [threading.Thread(target=a), threading.Thread(target=b)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("2回足した結果:", count)
"""

_LOCK = """\
import os, sys, threading

lock = threading.Lock()
if "held" in sys.argv:
    lock.acquire()
os.write(1, b"begin\\n")
for _ in range(3 if "held" in sys.argv else 1000):
    if lock.acquire(timeout=0.1):
        lock.release()
os.write(1, b"end\\n")
"""

_DEADLOCK = """\
import sys, threading

x, y = threading.Lock(), threading.Lock()
reverse = "same" not in sys.argv
meet = threading.Barrier(2).wait if reverse else int

def work(name, first, second):
    with first:
        meet()  # 両方が1つ目を取った
        got = second.acquire(timeout=1)
        print(name, "2つ目を取れた" if got else "1秒待っても2つ目を取れない", flush=True)
        meet()
        if got:
            second.release()

threading.Thread(target=work, args=("A:", x, y)).start()
threading.Thread(target=work, args=("B:", y, x) if reverse else ("B:", x, y)).start()
"""

_CRASH = """\
import ctypes, multiprocessing, sys, threading

kind = multiprocessing.Process if "process" in sys.argv else threading.Thread
other = kind(target=ctypes.string_at, args=(0,))  # 0番地を読む
other.start()
other.join()
print("最初のスレッドは、まだ動いています")
"""


def run(world: World) -> None:
    """Trace the creation, look at what is shared, weigh the cost, collide."""
    _creation(world)
    _tasks(world)
    _sharing(world)
    _cost(world)
    _lost_update(world)
    _lock(world)
    _deadlock(world)
    _crash(world)


def _trace(world: World, name: str) -> list[str]:
    """Run a script under strace; return the lines that create threads or processes."""
    world.do(f"{_TRACE} python3 {name}")
    return world.do("grep -E 'clone|fork' trace", code=None, show=_NO_POINTERS).lines


def _flags(line: str) -> set[str]:
    return set(Done(line, 0).all(r"\bCLONE_([A-Z]+)\b"))


def _stacks(lines: list[str]) -> set[str]:
    """Return the addresses of the stacks that were handed over."""
    return {stack for line in lines for stack in Done(line, 0).all(r"stack=(0x[0-9a-f]+)")}


def _creation(world: World) -> None:
    world.section("creation", "スレッドを2つ作るシステムコールを見る")
    world.say("straceで、プロセスやスレッドを作るシステムコールだけを記録します。")
    world.file("two.py", _TWO_THREADS)
    lines = _trace(world, "two.py")
    seen = f"clone系が{len(lines)}回"
    world.fact("creation-is-a-system-call", len(lines) == 2, seen=seen)
    flags = set.intersection(*map(_flags, lines))
    seen = "、".join(sorted(f"CLONE_{name}" for name in flags & _SHARED))
    world.fact("flags-share-the-resources", flags >= _SHARED, seen=seen)
    seen = f"スタックの場所が{len(_stacks(lines))}通り"
    world.fact("stack-per-thread", len(_stacks(lines)) == 2, seen=seen)


def _tids(world: World, pid: int) -> list[str]:
    """Show and return the thread ids of a process."""
    world.name("pid", pid)
    tids = world.ask(f"ls /proc/{pid}/task").text.split()
    world.name("pid", *tids)
    world.do(f"ps -L -o pid,lwp,stat,comm -p {pid}")
    return world.do(f"ls /proc/{pid}/task").text.split()


def _tasks(world: World) -> None:
    world.section("tasks", "スレッドを一覧する")
    world.say("Pythonの中にスレッドを2つ増やします。psでは`-L`を付けると、LWP列にTIDが出ます。")
    prompt = world.python()
    prompt("import threading, time")
    prompt("new = [threading.Thread(target=time.sleep, args=(600,)) for _ in range(2)]")
    prompt("for thread in new: thread.start()")
    tids = _tids(world, prompt.pid)
    known = prompt.ask("for t in threading.enumerate(): print(t.native_id)").split()
    seen = f"3つのスレッドに、TIDが{len(tids)}つ"
    world.fact("task-lists-threads", len(tids) == 3 and set(tids) == set(known), seen=seen)
    own = prompt.ask("print(threading.main_thread().native_id)")
    seen = f"PID {prompt.pid}、最初のスレッドのTID {own}"
    world.fact("main-tid-is-the-pid", own == str(prompt.pid), seen=seen)


def _work_elsewhere(world: World, start: str, wait: str) -> tuple[str, bool]:
    """Change a variable and close a file elsewhere; return the value here, and whether closed."""
    prompt = world.python()
    prompt("import os, threading")
    prompt("value, file = 0, os.open('/etc/passwd', os.O_RDONLY)")
    prompt("def work(): global value; value = 1; os.close(file)")
    prompt(start)
    prompt(wait)
    value = prompt("value")
    closed = prompt.ask("print(not os.path.exists('/proc/self/fd/' + str(file)))") == "True"
    prompt("len(os.read(file, 4))", raises="OSError" if closed else "")
    return value, closed


def _sharing(world: World) -> None:
    world.section("sharing", "共有されるものを確かめる")
    world.say("別のスレッドが変数を書き換え、ファイルを閉じます。結果は、最初のスレッドで見ます。")
    start = "thread = threading.Thread(target=work); thread.start()"
    value, closed = _work_elsewhere(world, start, "thread.join()")
    world.fact("variables-are-shared", value == "1", seen=f"値は0から{value}へ")
    world.fact("descriptors-are-shared", closed, seen="読むとBad file descriptor")


def _costs(world: World, argument: str = "") -> tuple[list[int], list[int]]:
    """Return what fork and what a thread cost before and after, in microseconds."""
    done = world.do(f"python3 cost.py {argument}".rstrip())
    forks = [int(cost) for cost in done.all(r"fork (\d+)")]
    return forks, [int(cost) for cost in done.all(r"スレッド (\d+)")]


def _grows(costs: list[int]) -> bool:
    return costs[1] > 3 * costs[0]


def _told(name: str, costs: list[int]) -> str:
    return f"{name}は{costs[0]}から{costs[1]}マイクロ秒へ"


def _cost(world: World) -> None:
    world.section("cost", "forkとスレッドの費用を比べる")
    world.say("それぞれ40回の平均です。値はマシンと実行ごとに違います。")
    world.file("cost.py", _COST)
    forks, threads = _costs(world)
    world.fact("fork-cost-grows", _grows(forks), seen=_told("fork", forks))
    world.fact("thread-cost-stays", not _grows(threads), seen=_told("スレッド", threads))


def _count(world: World, argument: str = "") -> str:
    return world.do(f"python3 count.py {argument}".rstrip()).find(r"結果: (\d)")[1]


def _lost_update(world: World) -> None:
    world.section("lost-update", "更新が失われるところを見る")
    world.say("0に1を2回足します。Aが読んでから書くまでの間に、必ずBが書くようにしてあります。")
    world.file("count.py", _COUNT)
    count = _count(world)
    world.fact("unlocked-update-is-lost", count == "1", seen=f"2回足したのに{count}")


def _futexes(world: World, argument: str = "") -> int:
    world.ask("rm -f trace")
    world.do(f"strace -f -e trace=futex,write -o trace python3 lock.py {argument}".rstrip())
    pointers = cut(r"(?<=futex\()0x\w+", r"\{tv_sec=[^}]+\}")
    trace = world.do("sed -n '/begin/,/end/p' trace", show=pointers)
    return len(trace.all(r"\bfutex\("))


def _lock(world: World) -> None:
    world.section("lock", "ロックとシステムコール")
    world.say(
        "Linuxのロックは、待つときと起こすときだけ`futex`を呼びます。まず1000回、待たずに取ります。"
    )
    world.file("lock.py", _LOCK)
    futexes = _futexes(world)
    seen = f"1000回のロックで、futexは{futexes}回"
    world.fact("free-lock-needs-no-system-call", futexes == 0, seen=seen)


def _stuck(world: World, argument: str = "") -> int:
    done = world.do(f"python3 deadlock.py {argument}".rstrip())
    return len(done.all("取れない$"))


def _deadlock(world: World) -> None:
    world.section("deadlock", "デッドロックを起こす")
    world.say("Aはx、yの順に、Bはy、xの順に取ります。1秒で諦めなければ、永久に待ちます。")
    world.file("deadlock.py", _DEADLOCK)
    stuck = _stuck(world)
    world.fact("opposite-order-deadlocks", stuck == 2, seen=f"取れなかったのは{stuck}つ")


def _crashed(world: World, argument: str = "") -> tuple[bool, str]:
    """Return whether the whole process ended, and its exit code."""
    done = world.do(f"python3 crash.py {argument}".rstrip() + " 2>&1; echo 終了コード $?")
    code = done.find(r"終了コード (\d+)")[1]
    return code == "139" and not done.has("まだ動いています"), code


def _crash(world: World) -> None:
    world.section("crash", "1つのスレッドだけが間違える")
    world.say("2つ目のスレッドだけが、読めない0番地を読みます。")
    world.file("crash.py", _CRASH)
    ended, code = _crashed(world)
    world.fact("one-crash-ends-all", ended, seen=f"終了コード{code}（128+SIGSEGVの11）")


def control(world: World) -> None:
    """Take the causes away: processes for threads, memory unused, a lock, one order."""
    _creating_nothing(world)
    _creating_processes(world)
    _listing_processes(world)
    _sharing_nothing(world)
    _unused_memory(world)
    _with_a_lock(world)
    _same_order(world)
    _crashing_process(world)


def _creating_nothing(world: World) -> None:
    world.section("coroutines", "1つのスレッドで2つの待ちを進める")
    world.say("asyncioは、1つのスレッドの中で、待ちの間にほかの仕事へ移ります。")
    world.file("two.py", _TWO_COROUTINES)
    lines = _trace(world, "two.py")
    why = "スレッドを作らなければ、clone系は呼ばれない"
    seen = f"clone系が{len(lines)}回"
    world.control("creation-is-a-system-call", len(lines) == 2, why=why, seen=seen)


def _creating_processes(world: World) -> None:
    world.section("processes", "スレッドの代わりにforkする")
    world.file("two.py", _TWO_PROCESSES)
    lines = _trace(world, "two.py")
    flags = set.union(*map(_flags, lines))
    why = "forkは、資源を共有するための指定をしない"
    seen = f"CLONE_VMなど5つのうち、付いたのは{len(flags & _SHARED)}つ"
    world.control("flags-share-the-resources", flags >= _SHARED, why=why, seen=seen)
    why = "forkは新しいスタックを渡さない。アドレス空間ごと写すので、同じ番地を使える"
    stacks = len(_stacks(lines))
    world.control("stack-per-thread", stacks == 2, why=why, seen=f"渡したスタックは{stacks}個")


def _listing_processes(world: World) -> None:
    world.section("other-tasks", "プロセスを2つ増やす、後のスレッドを見る")
    prompt = world.python()
    prompt("import os, threading, time")
    prompt("children = [os.fork() or time.sleep(600) for _ in range(2)]")
    count = len(_tids(world, prompt.pid))
    prompt.ask("for child in children: os.kill(child, 9)")
    why = "子プロセスは、親のtaskには並ばない"
    world.control("task-lists-threads", count == 3, why=why, seen=f"TIDは{count}つ")
    world.say("後から作ったスレッドに、自分のTIDとPIDを言わせます。")
    prompt("def tell(): print(threading.get_native_id(), os.getpid())")
    prompt("thread = threading.Thread(target=tell)")
    tid, pid = prompt("thread.start(); thread.join()").split()
    world.name("pid", tid)
    why = "最初のスレッドでなければ、TIDはPIDと違う"
    seen = f"TID {tid}、PID {pid}"
    world.control("main-tid-is-the-pid", tid == pid, why=why, seen=seen)


def _sharing_nothing(world: World) -> None:
    world.section("own-copy", "別のプロセスで同じことをする")
    start = "child = os.fork() or (work(), os._exit(0))"
    value, closed = _work_elsewhere(world, start, "done = os.waitpid(child, 0)")
    why = "子プロセスが書き換えるのは、自分の写しだけである"
    world.control("variables-are-shared", value == "1", why=why, seen=f"値は{value}のまま")
    why = "fd表も写しなので、子が閉じても親では開いている"
    world.control("descriptors-are-shared", closed, why=why, seen="4バイト読めた")


def _unused_memory(world: World) -> None:
    world.section("memory-and-fork", "256 MiBを使わない、スレッドをforkに替える")
    world.file("cost.py", _COST, unseen=True)
    forks, _threads = _costs(world, "unused")
    why = "メモリを使わなければ、forkの費用も増えない"
    world.control("fork-cost-grows", _grows(forks), why=why, seen=_told("fork", forks))
    forks, _threads = _costs(world)
    why = "スレッドの代わりにforkで作れば、費用はメモリの量によって増える"
    world.control("thread-cost-stays", not _grows(forks), why=why, seen=_told("fork", forks))


def _with_a_lock(world: World) -> None:
    world.section("lock", "読んでから書くまでをロックで守る")
    world.file("count.py", _COUNT, unseen=True)
    count = _count(world, "lock")
    why = "Aがロックを持つ間Bは待つので、更新は失われない"
    world.control("unlocked-update-is-lost", count == "1", why=why, seen=f"2回足して{count}")
    world.say("空いていないロックを、0.1秒ずつ3回待ちます。")
    world.file("lock.py", _LOCK, unseen=True)
    futexes = _futexes(world, "held")
    why = "空いていなければ、futexを呼んで待つ"
    seen = f"3回で、futexは{futexes}回"
    world.control("free-lock-needs-no-system-call", futexes == 0, why=why, seen=seen)


def _same_order(world: World) -> None:
    world.section("same-order", "2つのロックを同じ順に取る")
    world.file("deadlock.py", _DEADLOCK, unseen=True)
    stuck = _stuck(world, "same")
    why = "同じ順に取れば、どちらも2つ目を取れる"
    seen = f"取れなかったのは{stuck}つ"
    world.control("opposite-order-deadlocks", stuck == 2, why=why, seen=seen)


def _crashing_process(world: World) -> None:
    world.section("crashing-process", "別のプロセスが間違える")
    world.file("crash.py", _CRASH, unseen=True)
    ended, code = _crashed(world, "process")
    why = "別のプロセスが終わっても、こちらは続く"
    world.control("one-crash-ends-all", ended, why=why, seen=f"終了コード{code}")
