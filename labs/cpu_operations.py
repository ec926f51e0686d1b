"""What each CPU tool says about loads made on purpose: who uses the CPUs and who waits for them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from labs.harness import Background, Done, Lab, World, cgroup, cut, only, program, trial


def _unfit() -> str:
    """Return why this machine is not fit, or nothing."""
    if not cgroup.parent("cpu"):
        return "CPUの上限を決められるcgroup（cpuコントローラー）のあるマシンで動かしてください"
    if not Path("/proc/pressure/cpu").exists():
        return "PSIのあるカーネルで動かしてください（起動時のpsi=1で有効になるものもあります）"
    return ""


LAB = Lab(
    title="CPUの道具の読み方",
    chapter="os/cpu-operations",
    shows="計算、システムコール、I/O待ち、順番待ち、上限の負荷を作り、道具の数値を見比べます。",
    facts={
        "computing-is-usr": "計算だけをするプロセスのCPU時間は、ほとんどがusになる",
        "system-calls-are-sys": "システムコールを繰り返すプロセスのCPU時間は、多くがsyになる",
        "niced-computing-is-nice": "niceを上げて計算すると、マシン全体のniに数えられる",
        "thread-view-names-the-culprit": "スレッドごとに見れば、CPUを使うスレッドの名が分かる",
        "waiting-for-disk-is-no-cpu-time": "ディスクを待つ間は、CPUをあまり使わず、bに数えられる",
        "iowait-hides-behind-load": "I/Oを待つものがいても、CPUが計算で埋まっていればwaは増えない",
        "load-average-counts-waiters": "CPUを使わずDの状態で待つだけでも、ロードアベレージは上がる",
        "r-counts-runnable": "実行可能なタスクがCPUより多ければ、その数がvmstatのrに出る",
        "psi-counts-the-waiting": "実行可能なタスクがCPUより多いと、PSIのCPUのsomeが100%に近づく",
        "quota-throttles": "上限のあるcgroupで計算し続けると、nr_throttledが増える",
        "throttled-looks-like-waiting": "上限で止められた時間は、pidstatの%waitに数えられる",
        "average-hides-throttling": "CPU使用率の平均が上限より低くても、スロットリングは起きる",
    },
    needs=(
        program("python3"),
        program("vmstat", "procps"),
        program("top", "procps"),
        program("mpstat", "sysstat"),
        program("pidstat", "sysstat"),
        program("taskset", "util-linux"),
        program("dd", "coreutils"),
        trial("CPU 0", "taskset -c 0 true", "CPU 0を使える環境で動かします"),
    ),
    seconds=45,
    limit=240,
    alone=True,
    root=True,
    disk=True,
    machine_wide=True,
    unfit=_unfit,
)

_CPUS = os.cpu_count() or 1
_HOGS = max(20, 10 * _CPUS)
_WAITERS = 100
_ROUNDS = 25
_QUOTA = 20  # % of one CPU
_SOME = 5  # %

# Readings to wait for, where others on the machine may get in the way
_BLOCKED = r"^ *\d+ +[1-9]\d* +\d+ "
_FEW = r"^ *1?\d +\d+ +\d+ "
_IOWAIT = r"^Average: +0( +[\d.]+){3} +(\d\d|[5-9])\."
_LITTLE_NICE = r"^Average: +all +[\d.]+ +[0-4]\."
_LITTLE_WAIT = r"^Average: +\d+ +\d+( +[\d.]+){3} +[1-4]?\d\."
_NO_TIME = cut(r"(?m)^(\d\d:\d\d:\d\d|Average:)")
_PIDSTAT = "pidstat -u -p $(cat pid) {} 1 | grep -E 'UID|Average'"
_MPSTAT = "mpstat -P 0 1 1 | grep -E 'Average: +(CPU|0)'"

_SPIN = """\
while True:
    pass
"""

_READ = """\
import mmap, os, sys

fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)  # キャッシュを使わない
piece = mmap.mmap(-1, 1 << 20)
while True:
    os.preadv(fd, [piece], 0)
"""

_SERVER = """\
import sys, threading, time

def work(name, busy):
    with open("/proc/thread-self/comm", "w") as comm:
        comm.write(name)  # スレッドに名を付ける
    while True:
        if not busy:
            time.sleep(1)

for name in ("accept", "worker-1", "worker-2", "logger"):
    threading.Thread(target=work, args=(name, name in sys.argv)).start()
"""

_WAIT = """\
import ctypes, os, sys, time

clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
CLONE_VFORK, SIGCHLD = 0x4000, 17
libc = ctypes.CDLL(None)
for _ in range(int(sys.argv[2])):
    if os.fork() == 0:
        if sys.argv[1] == "D":  # vforkの子を待つ間は、Dになる
            libc.syscall(clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0)
        time.sleep(600)
time.sleep(600)
"""

_BURST = """\
import time

while True:
    end = time.thread_time() + 0.05
    while time.thread_time() < end:  # CPUを50ミリ秒使ったら
        pass
    time.sleep(0.95)  # 950ミリ秒休む
"""

_LOOK = """\
# 1つのプロセスとマシン全体を、同じ1秒間で見る
mpstat -P ALL 1 1 | grep -E 'Average: +(CPU|all)' > machine &
pidstat -u -p "$1" 1 1 | grep -E 'UID|Average'
wait
cat machine
"""


def run(world: World) -> None:
    """Make one kind of load after the other and read the tools."""
    _computing(world)
    _system_calls(world)
    _niced(world)
    _threads(world)
    _disk(world)
    _load_average(world)
    _queue(world)
    _quota(world)
    _bursts(world)


# Reading the tools


def _table(done: Done, key: str) -> dict[str, float]:
    """Return the averages below the header line that has this column."""
    at = next(n for n, line in enumerate(done.lines) if key in line.split())
    names, row = (line.split()[1:] for line in done.lines[at : at + 2])
    pairs = zip(names, row, strict=True)
    return {name: float(word) for name, word in pairs if re.fullmatch(r"[\d.]+", word)}


@dataclass(frozen=True)
class _Look:
    """One process and the whole machine in the same second, in % of one CPU."""

    usr: float
    system: float
    wait: float
    cpu: float
    machine_nice: float

    @property
    def seen(self) -> str:
        """Return the process's shares in words."""
        return f"%usr {self.usr:.0f}、%system {self.system:.0f}"


def _look(world: World, until: str = "") -> _Look:
    done = world.do("bash look.sh $(cat pid)", until=until, show=_NO_TIME)
    one, machine = _table(done, "%system"), _table(done, "%iowait")
    shares = (one["%usr"], one["%system"], one["%wait"], one["%CPU"])
    return _Look(*shares, machine["%nice"] * _CPUS)


def _start(world: World, command: str) -> Background:
    """Start a load and leave its number in the file `pid`."""
    load = world.start(command)
    world.file("pid", f"{load.pid}\n", unseen=True)
    return load


def _watched(world: World, command: str, until: str = "") -> _Look:
    """Look at a load for a second, then end it."""
    load = _start(world, command)
    looked = _look(world, until)
    load.stop()
    return looked


def _vmstat(world: World, until: str = "") -> dict[str, int]:
    """Show vmstat of one second; its first line, since the boot, is left out."""
    done = world.do("vmstat 1 2 | sed 3d", until=until)
    return dict(zip(done.lines[1].split(), map(int, done.lines[2].split()), strict=True))


# Where CPU time goes


def _computing(world: World) -> None:
    world.section("computing", "計算だけをする")
    world.say("look.shは、pidstat（上の2行）とmpstat（下の2行）で、同じ1秒間を見ます。")
    world.say("pidは、動かしたプロセスの番号を書いたファイルです。")
    world.file("look.sh", _LOOK)
    world.file("spin.py", _SPIN)
    looked = _watched(world, "python3 spin.py")
    world.fact("computing-is-usr", _computes(looked), seen=looked.seen)


def _computes(looked: _Look) -> bool:
    return looked.usr > 5 * looked.system


def _system_calls(world: World) -> None:
    world.section("system-calls", "システムコールを繰り返す")
    world.say("ddに、1バイトずつ読んで書かせます。1バイトごとにシステムコールが2回です。")
    looked = _watched(world, "dd if=/dev/zero of=/dev/null bs=1")
    world.fact("system-calls-are-sys", _calls(looked), seen=looked.seen)


def _calls(looked: _Look) -> bool:
    return looked.system > looked.usr


def _niced(world: World) -> None:
    world.section("niced", "niceを上げて計算する")
    world.say("pidstatの%usrはniceを区別しません。区別するのは、マシン全体の%niceです。")
    looked = _watched(world, "nice -n 5 python3 spin.py")
    world.fact("niced-computing-is-nice", _is_nice(looked), seen=_nice_seen(looked))


def _is_nice(looked: _Look) -> bool:
    """Return whether the machine's nice time covers what the process used."""
    return looked.machine_nice > looked.usr / 2


def _nice_seen(looked: _Look) -> str:
    return f"プロセスの%usr {looked.usr:.0f}、全体の%nice {looked.machine_nice:.0f}（CPU 1個分で）"


def _threads(world: World) -> None:
    world.section("threads", "CPUを使うスレッドを探す")
    world.say("4本のスレッドのうち、worker-2だけが回り続けるプロセスです。")
    world.file("server.py", _SERVER)
    share, top = _hottest(world, "worker-2")
    world.fact("thread-view-names-the-culprit", _named(share, top), seen=f"{top}が{share:.0%}")


def _hottest(world: World, busy: str) -> tuple[float, str]:
    """Show a server's threads; return the hottest's share of the CPU, and its name."""
    server = _start(world, f"python3 server.py {busy}".rstrip())
    world.ask(f"ps -L -o comm= -p {server.pid}", until="logger")
    done = world.do("pidstat -t -p $(cat pid) 1 1 | grep -E 'UID|Average'", show=_NO_TIME)
    server.stop()
    rows = [line.split() for line in done.lines if "|__" in line]
    use = {row[-1].removeprefix("|__"): float(row[-3]) for row in rows}
    top = max(use, key=lambda name: use[name])
    return use[top] / max(sum(use.values()), 1), top


def _named(share: float, top: str) -> bool:
    return share > 0.9 and top == "worker-2"


# Waiting for a disk


def _disk(world: World) -> None:
    world.section("disk", "ディスクを待つ")
    world.say("キャッシュを使わずに、ディスクから1 MiBずつ読み続けます。使うのはCPU 0だけです。")
    world.file("read.py", _READ)
    reader = _reader(world)
    low, seen = _mostly_waiting(world, _BLOCKED)
    world.fact("waiting-for-disk-is-no-cpu-time", low, seen=seen)
    alone = _iowait(world)
    world.say("読むのは続けたまま、CPU 0で計算も始めます。")
    spin = _start(world, "taskset -c 0 python3 spin.py")
    hidden, seen = _hidden_wait(world)
    world.fact("iowait-hides-behind-load", hidden, seen=f"%iowait {alone:.0f} → {seen}")
    spin.stop()
    reader.stop()


def _hidden_wait(world: World, until: str = "") -> tuple[bool, str]:
    """Return whether something waits for I/O that I/O wait does not show."""
    iowait, stalled = _iowait(world, until), _stalled(world, "io")
    world.do("cat /proc/pressure/io")
    seen = f"{iowait:.0f}、ioのsomeは1秒のうち{stalled:.0%}"
    return stalled >= 0.1 and iowait < _SOME, seen


def _reader(world: World) -> Background:
    world.ask(f"dd if=/dev/zero of={world.disk}/data bs=1M count=1 conv=fsync")
    return _start(world, f"taskset -c 0 python3 read.py {world.disk}/data")


def _mostly_waiting(world: World, until: str = "") -> tuple[bool, str]:
    """Return whether a process is blocked for I/O most of the time it is not runnable."""
    one = _table(world.do(_PIDSTAT.format(1), show=_NO_TIME), "%system")
    blocked = _vmstat(world, until)["b"]
    low = one["%CPU"] < (100 - one["%wait"]) / 2
    return low and blocked >= 1, f"%CPU {one['%CPU']:.0f}、b {blocked}"


def _iowait(world: World, until: str = "") -> float:
    return _table(world.do(_MPSTAT, until=until, show=_NO_TIME), "%iowait")["%iowait"]


def _total(resource: str) -> int:
    """Return for how many microseconds something waited for a resource."""
    text = Path(f"/proc/pressure/{resource}").read_text()
    found = re.search(r"^some .*total=(\d+)", text, re.M)
    return int(found[1]) if found else 0


def _stalled(world: World, resource: str, seconds: float = 1) -> float:
    """Return for which part of a short time something waited for a resource."""
    before, start = _total(resource), monotonic()
    world.ask(f"sleep {seconds}")
    return (_total(resource) - before) / (monotonic() - start) / 1e6


# Load average


def _load_average(world: World) -> None:
    world.section("load-average", "CPUを使わずに待つだけのプロセスを増やす")
    world.say(f"{_WAITERS}個のプロセスを、割り込み不可の待ち（D）にします。")
    world.say("ここではvforkの子を待たせていますが、応答しないNFSの待ちも、同じDです。")
    grown = _waiting(world, "D")
    seen = f"1分の値が{grown:+.2f}"
    world.fact("load-average-counts-waiters", _loaded(grown), seen=seen)


def _waiting(world: World, state: str) -> float:
    """Let processes wait in a state; return by how much the load average grew."""
    world.file("wait.py", _WAIT, unseen=state == "S")
    before = _load(world)
    parent = _start(world, f"python3 wait.py {state} {_WAITERS}")
    count = "ps -C python3 -o stat= | cut -c1 | sort | uniq -c"
    world.ask(count, until=rf"^ +{_WAITERS // 10}\d {state}$")
    world.ask("sleep 6")  # the kernel reckons every 5 seconds
    world.do(count)
    after = _load(world)
    _vmstat(world)
    parent.stop()
    return after - before


def _load(world: World) -> float:
    return float(world.do("cat /proc/loadavg", show=cut(r" \d+$")).text.split()[0])


def _loaded(grown: float) -> bool:
    return grown > _WAITERS / 20


# More runnable tasks than CPUs


def _queue(world: World) -> None:
    world.section("queue", "CPUの数より多くの計算を、同時に動かす")
    hogs = _hogs(world, "spin.py")
    runnable = _vmstat(world)["r"]
    seen = f"CPU {_CPUS}個に、r {runnable}"
    world.fact("r-counts-runnable", _many(runnable), seen=seen)
    share = _stalled(world, "cpu")
    world.do("cat /proc/pressure/cpu")
    seen = f"1秒のうち{share:.0%}"
    world.fact("psi-counts-the-waiting", _pressed(share), seen=seen)
    world.say("1つのプロセスに絞ると、CPUを待った時間の割合が%waitに出ます。")
    world.file("pids", ",".join(str(hog.pid) for hog in hogs[:3]), unseen=True)
    world.do("pidstat -u -p $(cat pids) 1 1 | grep Average", show=_NO_TIME)
    for hog in hogs:
        hog.stop()


def _hogs(world: World, program: str) -> list[Background]:
    world.say(f"CPU {_CPUS}個に対して、{_HOGS}個のプロセスを動かします。")
    return [world.start_unseen(f"python3 {program}") for _ in range(_HOGS)]


def _pressed(share: float) -> bool:
    return share > 0.95


def _many(runnable: int) -> bool:
    return runnable >= _HOGS


# Limits


_FILES = {"quota": ("cpu.max", "cpu.cfs_quota_us"), "stat": ("cpu.stat", "cpu.stat")}


def _group(world: World) -> None:
    cgroup.make(world, "cpu", cgroup.new("cpu"), "group", _FILES)


def _limit(world: World) -> None:
    _group(world)
    world.say("groupは、作ったcgroupの設定ファイルへの近道を集めたディレクトリーです。")
    world.say(
        "quotaの本名は、cgroup v2ではcpu.max、v1ではcpu.cfs_quota_usです。statはcpu.statです。"
    )
    world.say("100ミリ秒ごとに20ミリ秒まで、つまりCPU 1個の20%を上限にします。")
    world.do("echo 20000 > group/quota")


_COUNTERS = only(r"^nr_(periods|throttled)|^throttled_")


def _throttled(world: World) -> int:
    """Show the counters, and return how often the group was throttled."""
    done = world.do("cat group/stat", show=_COUNTERS)
    return int(done.find(r"^nr_throttled (\d+)")[1])


def _limited(world: World, command: str) -> Background:
    """Start a load in the cgroup."""
    load = _start(world, command)
    world.do("cat pid > group/procs")
    return load


def _quota(world: World) -> None:
    world.section("quota", "CPUの上限を20%にする")
    _limit(world)
    times, looked = _under_quota(world)
    world.fact("quota-throttles", times > 0, seen=f"2秒ほどで{times}回")
    seen = f"%CPU {looked.cpu:.0f}、%wait {looked.wait:.0f}"
    world.fact("throttled-looks-like-waiting", _stopped(looked), seen=seen)


def _under_quota(world: World, until: str = "") -> tuple[int, _Look]:
    """Compute in the cgroup; return how often it was throttled and what the tools said."""
    spin = _limited(world, "python3 spin.py")
    before = _throttled(world)
    looked = _look(world, until)
    _vmstat(world)
    times = _throttled(world) - before
    spin.stop()
    return times, looked


def _stopped(looked: _Look) -> bool:
    return looked.wait > 2 * looked.cpu


def _bursts(world: World) -> None:
    world.section("bursts", "ときどきだけ、まとめて計算する")
    world.say("上限は20%のままで、1秒に50ミリ秒だけCPUを使います。平均では5%です。")
    world.file("burst.py", _BURST)
    times, average = _bursting(world)
    seen = f"平均{average:.0f}%で、{times}回止められた"
    world.fact("average-hides-throttling", _hidden(times, average), seen=seen)


def _bursting(world: World) -> tuple[int, float]:
    """Compute in bursts; return how often they were throttled, and the average use."""
    burst = _limited(world, "python3 burst.py")
    before = _throttled(world)
    done = world.do(_PIDSTAT.format(4), show=_NO_TIME)
    times = _throttled(world) - before
    burst.stop()
    return times, _table(done, "%system")["%CPU"]


def _hidden(times: int, average: float) -> bool:
    return times > 0 and average < _QUOTA


def control(world: World) -> None:
    """Take the causes away: other work, no I/O beside no load, sleepers, no limit."""
    world.file("look.sh", _LOOK, unseen=True)
    world.file("spin.py", _SPIN, unseen=True)
    _other_work(world)
    _idle_threads(world)
    _busy_reader(world)
    _sleepers(world)
    _no_queue(world)
    _no_limit(world)


def _other_work(world: World) -> None:
    world.section("other-work", "仕事の種類を入れ替える")
    looked = _watched(world, "dd if=/dev/zero of=/dev/null bs=1")
    why = "システムコールを繰り返せば、usよりsyが増える"
    world.control("computing-is-usr", _computes(looked), why=why, seen=looked.seen)
    looked = _watched(world, "python3 spin.py", _LITTLE_NICE)
    why = "計算だけなら、syはほとんど増えない"
    world.control("system-calls-are-sys", _calls(looked), why=why, seen=looked.seen)
    why = "niceを上げなければ、usrに数えられる"
    seen = _nice_seen(looked)
    world.control("niced-computing-is-nice", _is_nice(looked), why=why, seen=seen)


def _idle_threads(world: World) -> None:
    world.section("idle-threads", "どのスレッドも休ませる")
    world.file("server.py", _SERVER, unseen=True)
    share, top = _hottest(world, "")
    why = "CPUを使うスレッドがなければ、どれも0に近い"
    seen = f"{top}の{share:.0%}が最も多い"
    world.control("thread-view-names-the-culprit", _named(share, top), why=why, seen=seen)


def _busy_reader(world: World) -> None:
    world.section("no-load", "計算を始めずに、ディスクを読み続ける")
    world.file("read.py", _READ, unseen=True)
    reader = _reader(world)
    hidden, seen = _hidden_wait(world, _IOWAIT)
    reader.stop()
    why = "CPUが空いていれば、I/Oを待つ時間がwaに出る"
    seen = f"%iowait {seen}"
    world.control("iowait-hides-behind-load", hidden, why=why, seen=seen)
    spin = _start(world, "python3 spin.py")
    low, seen = _mostly_waiting(world)
    spin.stop()
    why = "計算をするプロセスは、bに数えられない"
    world.control("waiting-for-disk-is-no-cpu-time", low, why=why, seen=seen)


def _sleepers(world: World) -> None:
    world.section("sleepers", "同じ数のプロセスを、割り込みできる待ち（S）にする")
    grown = _waiting(world, "S")
    why = "Sで待つものは、ロードアベレージに数えない"
    seen = f"1分の値が{grown:+.2f}"
    world.control("load-average-counts-waiters", _loaded(grown), why=why, seen=seen)


def _no_queue(world: World) -> None:
    world.section("no-queue", "計算ではなく、眠るプロセスを同じ数だけ動かす")
    world.file("sleep.py", "import time\n\ntime.sleep(600)\n")
    hogs = _hogs(world, "sleep.py")
    world.ask("ps -C python3 -o stat= | grep -c S", until=rf"^{_HOGS}$")
    runnable = _vmstat(world, _FEW)["r"]
    why = "眠っているタスクは、rに数えない"
    seen = f"CPU {_CPUS}個に、r {runnable}"
    world.control("r-counts-runnable", _many(runnable), why=why, seen=seen)
    share = min(_stalled(world, "cpu", 0.2) for _ in range(_ROUNDS))
    world.do("cat /proc/pressure/cpu")
    why, seen = "順番を待つタスクがなければ、someはほとんど増えない", f"1秒のうち{share:.0%}"
    world.control("psi-counts-the-waiting", _pressed(share), why=why, seen=seen)
    for hog in hogs:
        hog.stop()


def _no_limit(world: World) -> None:
    world.section("no-limit", "上限を決めずに、同じことをする")
    _group(world)
    world.ask("echo 10000 > group/weight")  # others on the machine shall not make it wait
    times, looked = _under_quota(world, _LITTLE_WAIT)
    why = "上限がなければ、止められない"
    world.control("quota-throttles", times > 0, why=why, seen=f"{times}回")
    why = "止められなければ、CPUが空いている限り待たない"
    seen = f"%CPU {looked.cpu:.0f}、%wait {looked.wait:.0f}"
    world.control("throttled-looks-like-waiting", _stopped(looked), why=why, seen=seen)
    world.file("burst.py", _BURST, unseen=True)
    times, average = _bursting(world)
    why = "上限がなければ、まとめて使っても止められない"
    seen = f"平均{average:.0f}%で、{times}回"
    world.control("average-hides-throttling", _hidden(times, average), why=why, seen=seen)
