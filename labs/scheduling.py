"""How one CPU is shared out: weights, vruntime, threads, classes, switches and run queues."""

from __future__ import annotations

from dataclasses import dataclass

from labs.harness import Done, Lab, World, program, trial

LAB = Lab(
    title="CPU時間の分け方",
    chapter="os/scheduling",
    shows="1つのCPUを奪い合わせ、nice、スレッドの数、クラスによって取り分がどう変わるかを測ります。",
    facts={
        "equals-share-equally": "同じniceの2つのタスクは、1つのCPUの時間を半分ずつ得る",
        "waiting-for-cpu-is-counted": "動けるのにCPUを待った時間は、schedstatに積もる",
        "nice-five-means-a-third": "niceが5大きい相手とは、CPU時間がおよそ3対1になる",
        "vruntime-advances-alike": "CPUを奪い合う2つのvruntimeは、niceが違ってもほぼ同じだけ進む",
        "threads-are-what-is-scheduled": "取り分は、プロセスではなくスレッドの数で決まる",
        "idle-class-yields": "SCHED_IDLEのタスクは、ほかに動くものがあればほとんど動けない",
        "looping-task-is-preempted": "待たないタスクのCPUは、カーネルが取り上げる",
        "waiting-task-gives-way": "待つタスクは、自分からCPUを手放す",
        "pinned-task-stays": "許されたCPUが混んでいても、許されていないCPUへは移らない",
        "kernel-spreads-the-load": "許されたCPUが2つあれば、カーネルはタスクを両方に分ける",
        "lowering-nice-takes-privilege": "niceを下げる（優先する）には、権限が要る",
    },
    needs=(
        program("python3"),
        program("ps", "procps"),
        program("taskset", "util-linux"),
        program("setpriv", "util-linux"),
        trial(
            "/proc/PID/sched",
            "grep -q se.vruntime /proc/self/sched",
            "CONFIG_SCHED_DEBUGのあるカーネルで動かします",
        ),
        trial(
            "CPUが2つ", "taskset -c 0,1 true && [ $(nproc) -ge 2 ]", "CPUが2つある環境で動かします"
        ),
    ),
    seconds=16,
    limit=150,
    alone=True,
)

_RACE = """\
import hashlib, os, re, sys, threading, time

def burn(threads):  # 計算し続ける
    work = ("sha256", b"", b"", 10**9)
    for _ in range(threads - 1):
        threading.Thread(target=hashlib.pbkdf2_hmac, args=work).start()
    hashlib.pbkdf2_hmac(*work)

def compete(way, threads):
    os.sched_setaffinity(0, {0})  # CPU 0だけを使う
    if way == "sleep":
        time.sleep(600)
    elif way == "idle":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(int(way))
    burn(int(threads or 1))

def measure(pid):  # 3つともミリ秒
    cpu = wait = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        words = open(f"/proc/{pid}/task/{task}/schedstat").read().split()
        cpu, wait = cpu + int(words[0]) / 1e6, wait + int(words[1]) / 1e6
        sched = open(f"/proc/{pid}/task/{task}/sched").read()
    return cpu, wait, float(re.search(r"se.vruntime *: *(\\S+)", sched)[1])

children = []
for argument in sys.argv[1:]:  # niceか「nice x スレッド数」、idle、sleep
    way, _, threads = argument.partition("x")
    children.append(os.fork() or compete(way, threads))
time.sleep(0.3)
start, before = time.monotonic(), [measure(pid) for pid in children]
after = before
while sum(new[0] - old[0] for old, new in zip(before, after)) < 1000:  # 合わせて1秒動くまで
    time.sleep(0.1)
    after = [measure(pid) for pid in children]
seconds = time.monotonic() - start
print(f"測った時間 {seconds * 1000:.0f}")
for way, a, b, pid in zip(sys.argv[1:], before, after, children):
    cpu, wait, vruntime = (new - old for old, new in zip(a, b))
    print(f"{way}: CPU時間 {cpu:.0f} 待ち {wait:.0f} vruntime +{vruntime:.0f}")
    os.kill(pid, 9)
"""

_TASK = """\
import sys, time

while True:
    if "sleep" in sys.argv:
        time.sleep(0.001)
"""
_SOME, _MANY = r"^nonvol.*\t\d{3}", r"^vol.*\t\d{4}"
_SHORT, _LONG = 20, 200  # looks at where tasks run
_PRIVILEGE = "setpriv --bounding-set=-sys_nice --inh-caps=-sys_nice"


@dataclass(frozen=True)
class _Runner:
    """What one runner of a race got, in milliseconds."""

    cpu: int
    wait: int
    vruntime: int


@dataclass(frozen=True)
class _Race:
    """A race of two."""

    time: int
    first: _Runner
    second: _Runner

    @property
    def ratio(self) -> float:
        """Return how many times the second's CPU time the first got."""
        return self.first.cpu / max(self.second.cpu, 1)

    @property
    def accounted(self) -> float:
        """Return which part of the time the second ran or waited for the CPU."""
        return (self.second.cpu + self.second.wait) / self.time

    @property
    def rest(self) -> str:
        """Return how the second spent the time in words."""
        sum_up = f"合計は測った時間{self.time}の{self.accounted:.0%}"
        return f"CPU時間{self.second.cpu}、待ち{self.second.wait}、{sum_up}"

    @property
    def seen(self) -> str:
        """Return the two CPU times in words."""
        times = f"CPU時間は{self.first.cpu}と{self.second.cpu}ミリ秒"
        return f"{times}、比は{self.ratio:.2f}"


def run(world: World) -> None:
    """Let two runners race for CPU 0 in several ways; watch switches, queues and privilege."""
    _equals(world)
    _nice(world)
    _threads(world)
    _idle(world)
    _switches(world)
    _queues(world)
    _privilege(world)


def _race(world: World, ways: str) -> _Race:
    done = world.do(f"python3 race.py {ways}")
    figures = [[int(x) for x in Done(line, 0).all(r" \+?(\d+)")] for line in done.lines]
    return _Race(figures[0][0], _Runner(*figures[1]), _Runner(*figures[2]))


def _equal(race: _Race) -> bool:
    return 0.75 < race.ratio < 1.33


def _runnable_all_along(race: _Race) -> bool:
    """Return whether CPU time and waiting make up the whole time."""
    return 0.6 < race.accounted < 1.4


def _third(race: _Race) -> bool:
    return 2.4 < race.ratio < 3.8


def _alike(race: _Race) -> bool:
    return 0.8 < race.first.vruntime / max(race.second.vruntime, 1) < 1.25


def _by_thread(race: _Race) -> bool:
    return 0.25 < race.ratio < 0.43


def _yields(race: _Race) -> bool:
    return race.second.cpu < race.first.cpu / 50


def _equals(world: World) -> None:
    world.section("equals", "同じniceの2つを競わせる")
    world.say("2つのプロセスに、CPU 0だけで計算させます。数値は、どれもミリ秒です。")
    world.file("race.py", _RACE)
    race = _race(world, "0 0")
    world.fact("equals-share-equally", _equal(race), seen=race.seen)
    world.fact("waiting-for-cpu-is-counted", _runnable_all_along(race), seen=race.rest)


def _nice(world: World) -> None:
    world.section("nice", "niceを変える")
    world.say("niceは重みになります。nice 0の重みは1024、nice 5は335で、比は3.06です。")
    world.say(
        "vruntimeは、重みが大きいほどゆっくり進む時計です。カーネルは、これをそろえようとします。"
    )
    race = _race(world, "0 5")
    world.fact("nice-five-means-a-third", _third(race), seen=race.seen)
    seen = f"{race.first.vruntime}と{race.second.vruntime}"
    world.fact("vruntime-advances-alike", _alike(race), seen=seen)


def _threads(world: World) -> None:
    world.section("threads", "片方のスレッドを3本にする")
    world.say(
        "`0x3`は、nice 0のスレッドを3本動かすという意味です。CPU時間と待ちは、3本の合計です。"
    )
    race = _race(world, "0 0x3")
    world.fact("threads-are-what-is-scheduled", _by_thread(race), seen=race.seen)


def _idle(world: World) -> None:
    world.section("idle", "片方をSCHED_IDLEにする")
    world.say("`chrt --idle 0 コマンド`でも、同じクラスで動かせます。")
    race = _race(world, "0 idle")
    seen = f"{race.time}ミリ秒のうち{race.second.cpu}ミリ秒"
    world.fact("idle-class-yields", _yields(race), seen=seen)


def _switch_counts(world: World, argument: str = "") -> tuple[int, int]:
    """Return the voluntary and the involuntary switches of one of two tasks on CPU 0."""
    tasks = [world.start(f"taskset -c 0 python3 task.py {argument}".rstrip()) for _ in "ab"]
    world.name("pid", *(task.pid for task in tasks))
    command = f"grep ctxt /proc/{tasks[0].pid}/status"
    done = world.do(command, until=_MANY if argument else _SOME)
    for task in tasks:
        task.stop()
    return int(done.find(r"^vol.*\t(\d+)")[1]), int(done.find(r"^nonvol.*\t(\d+)")[1])


def _preempted(counts: tuple[int, int]) -> bool:
    return counts[1] > 2 * counts[0]


def _gives_way(counts: tuple[int, int]) -> bool:
    return counts[0] > 2 * counts[1]


def _counted(counts: tuple[int, int]) -> str:
    return f"自分から{counts[0]}回、取り上げられて{counts[1]}回"


def _switches(world: World) -> None:
    world.section("switches", "CPUを手放す2つの形を数える")
    world.say("回り続けるタスクと、0.001秒ずつ眠るタスクを、それぞれ2つずつ動かします。")
    world.file("task.py", _TASK)
    counts = _switch_counts(world)
    world.fact("looping-task-is-preempted", _preempted(counts), seen=_counted(counts))
    counts = _switch_counts(world, "sleep")
    world.fact("waiting-task-gives-way", _gives_way(counts), seen=_counted(counts))


def _crowd(world: World, allowed: str) -> set[str]:
    """Start four tasks that may run on some CPUs; return on which they were seen."""
    tasks = [world.start(f"taskset -c {allowed} python3 task.py") for _ in "abcd"]
    pids = [str(task.pid) for task in tasks]
    world.name("pid", *pids)
    world.ask("ps -C python3 -o args=", until=r"(?s)(python3 task.py.*){4}")
    seen = _cpus(world, ",".join(pids), tries=_SHORT if allowed == "0" else _LONG)
    for task in tasks:
        task.stop()
    return seen


def _cpus(world: World, pids: str, tries: int) -> set[str]:
    """Look again and again until tasks were seen on two CPUs."""
    cpus: set[str] = set()
    for _ in range(tries):
        cpus.update(world.ask(f"ps -o psr= -p {pids}; sleep 0.05").text.split())
        if len(cpus) > 1:
            break
    world.do(f"ps -o pid,psr,stat,args -p {pids}")
    return cpus


def _spread(cpus: set[str]) -> bool:
    return len(cpus) > 1


def _where(cpus: set[str]) -> str:
    return f"動いたのはCPU {'と'.join(sorted(cpus))}"


def _queues(world: World) -> None:
    world.section("queues", "許されたCPUと負荷分散")
    world.say("ランキューはCPUごとにあります。4つのタスクに、CPU 0だけを許します。")
    world.say("psのPSR列は、最後に動いたCPUです。1秒あまりの間、何度も調べます。")
    cpus = _crowd(world, "0")
    world.fact("pinned-task-stays", not _spread(cpus), seen=_where(cpus))
    world.say("今度は、CPU 0と1を許します。")
    cpus = _crowd(world, "0,1")
    world.fact("kernel-spreads-the-load", _spread(cpus), seen=_where(cpus))


def _renice(world: World, nice: int) -> Done:
    """Let a shell without privilege set its own nice value to 10, then to another."""
    done = world.do(f"{_PRIVILEGE} bash -c 'renice -n 10 $$; renice -n {nice} $$'", code=None)
    world.name("pid", done.find(r"^(\d+) \(process ID\)")[1])
    return done


def _refused(done: Done) -> bool:
    return done.has("Permission denied")


def _privilege(world: World) -> None:
    world.section("privilege", "権限なしでniceを下げる")
    world.say("setprivでniceを下げる権限（CAP_SYS_NICE）を外し、シェルが自分のniceを変えます。")
    done = _renice(world, 0)
    world.fact("lowering-nice-takes-privilege", _refused(done), seen="10から0へは、拒まれた")


def control(world: World) -> None:
    """Take the causes away: other weights, other CPUs, other numbers, rest."""
    world.section("races", "競わせ方を変える")
    world.file("race.py", _RACE, unseen=True)
    _unequal(world)
    _same(world)
    _resting(world)
    _other_tasks(world)
    _other_cpus(world)
    _raised(world)


def _unequal(world: World) -> None:
    race = _race(world, "0 5")
    why = "niceが違えば、半分ずつにならない"
    world.control("equals-share-equally", _equal(race), why=why, seen=race.seen)


def _same(world: World) -> None:
    world.say("nice、スレッドの数、クラスを、すべて同じにします。")
    race = _race(world, "5 5")
    why = "両方を5にすれば、差はない。効くのは、相手との差である"
    world.control("nice-five-means-a-third", _third(race), why=why, seen=race.seen)
    why = "スレッドの数が同じなら、半分ずつになる"
    world.control("threads-are-what-is-scheduled", _by_thread(race), why=why, seen=race.seen)
    why = "同じクラスなら、譲らない"
    world.control("idle-class-yields", _yields(race), why=why, seen=race.seen)


def _resting(world: World) -> None:
    world.say("片方は、眠ったままにします。")
    race = _race(world, "0 sleep")
    why = "眠っている時間は、CPUを待った時間に数えない"
    holds = _runnable_all_along(race)
    world.control("waiting-for-cpu-is-counted", holds, why=why, seen=race.rest)
    why = "CPUを奪い合っていなければ、vruntimeは進まない"
    seen = f"{race.first.vruntime}と{race.second.vruntime}"
    world.control("vruntime-advances-alike", _alike(race), why=why, seen=seen)


def _other_tasks(world: World) -> None:
    world.section("switches", "眠るタスクと回り続けるタスクを入れ替える")
    world.file("task.py", _TASK, unseen=True)
    counts = _switch_counts(world, "sleep")
    why = "すぐに眠るタスクからは、取り上げるまでもない"
    world.control("looping-task-is-preempted", _preempted(counts), why=why, seen=_counted(counts))
    counts = _switch_counts(world)
    why = "待たないタスクは、自分からは手放さない"
    world.control("waiting-task-gives-way", _gives_way(counts), why=why, seen=_counted(counts))


def _other_cpus(world: World) -> None:
    world.section("queues", "許すCPUを変える")
    cpus = _crowd(world, "0,1")
    why = "CPU 1を許せば、CPU 1でも動く"
    world.control("pinned-task-stays", not _spread(cpus), why=why, seen=_where(cpus))
    cpus = _crowd(world, "0")
    why = "許さなければ、CPU 1では動かせない"
    world.control("kernel-spreads-the-load", _spread(cpus), why=why, seen=_where(cpus))


def _raised(world: World) -> None:
    world.section("raised", "権限なしでniceを上げる")
    refused = _refused(_renice(world, 15))
    why = "上げる（譲る）だけなら、権限は要らない"
    world.control(
        "lowering-nice-takes-privilege", refused, why=why, seen="10から15へは、変えられた"
    )
