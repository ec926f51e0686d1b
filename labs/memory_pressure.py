"""Which numbers move when memory is short, and which move although it is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from labs.harness import Done, Lab, Session, World, cgroup, cut, program, trial

_NEEDED = 3 << 20  # kB


def _unfit() -> str:
    """Return why this machine is not fit, or nothing."""
    if not cgroup.parent("memory"):
        return "メモリを制限できるcgroup（memoryコントローラー）のあるマシンで動かしてください"
    if not Path("/proc/pressure/memory").exists():
        return "PSIの使えるカーネルで動かしてください（起動時にpsi=1が要るものもあります）"
    if _zswap():
        return "zswapを切ってから動かしてください（スワップの回数が数えられません）"
    found = re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())
    if not found or int(found[1]) < _NEEDED:
        return "使えるメモリ（MemAvailable）が3 GiB以上あるときに動かしてください"
    return ""


def _zswap() -> bool:
    enabled = Path("/sys/module/zswap/parameters/enabled")
    return enabled.exists() and enabled.read_text().strip() == "Y"


LAB = Lab(
    title="メモリ不足のときに動く数字",
    chapter="os/memory-operations",
    shows="足りているときと足りないときに、MemAvailable、PSS、PSIなどがどう動くかを比べます。",
    facts={
        "untouched-memory-costs-nothing": (
            "確保しただけでは、VmRSSは増えず、MemAvailableも減らない"
        ),
        "written-memory-lowers-available": ("書いた分だけ、VmRSSが増え、MemAvailableが減る"),
        "cache-leaves-available": ("ファイルを読むと、MemFreeは減るが、MemAvailableは減らない"),
        "rss-counts-shared-pages-twice": "2つのプロセスのRSSの和は、共有するページを2回数える",
        "pss-counts-them-once": "2つのプロセスのPSSの和は、共有するページを1回だけ数える",
        "leak-grows-anon": "返し忘れたメモリは、memory.statの匿名ページを増やす",
        "reading-grows-file": "ファイルを読むと、匿名ページではなく、ファイルの分が増える",
        "short-memory-raises-psi": "作業に使う量より上限が小さいと、PSIのsomeが増える",
        "full-is-part-of-some": "PSIのfullの時間は、someの時間を超えない",
        "psi-rises-without-swap": "スワップに出入りしなくても、PSIは増える",
        "limit-hits-are-counted": "上限に達した回数は、cgroupのカウンターに残る",
        "oom-log-names-the-cgroup": "cgroupの上限によるOOMは、ログに上限のcgroupの名前が残る",
        "swapping-shows-in-vmstat": "スワップを出し入れしている間は、vmstatのsiとsoが増える",
        "used-swap-is-not-swapping": "スワップが使われたままでも、触らなければsiとsoは増えない",
    },
    needs=(
        program("vmstat", "procps"),
        program("swapon", "mount"),
        program("mkswap", "util-linux"),
        program("python3"),
        program("dmesg", "util-linux"),
        trial("PSI", "cat /proc/pressure/memory", "PSIの使えるカーネルで動かしてください"),
    ),
    seconds=40,
    limit=150,
    alone=True,
    root=True,
    disk=True,
    machine_wide=True,
    unfit=_unfit,
)

_BIG = 512  # MiB, for the numbers of the whole machine
_SET = 96  # MiB, what a piece of work needs
_LIMIT = 64
_ROUNDING = 10  # microseconds: each CPU's part is rounded, and full was seen 1 above some
_ROOM = 512
_ROUNDS = 3
_MEDIAN = f"{_ROUNDS}回測り、中央値で判定します。{_ROUNDS}回目だけを示します。"

_MEMORY = """\
import mmap, os, random, signal, sys, time

BLOCK = 64 << 10


def allocate(mib):
    \"\"\"匿名ページを確保する。\"\"\"
    m = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    m.madvise(mmap.MADV_NOHUGEPAGE)
    return m


def write(m):
    \"\"\"すべてのページに書く。\"\"\"
    for at in range(0, len(m), mmap.PAGESIZE):
        m[at] = 1


def read(name):
    \"\"\"ファイルを最後まで読む。\"\"\"
    with open(name, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def visit(name, times):
    \"\"\"ファイルのあちこちを、times回読む。\"\"\"
    fd = os.open(name, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    blocks = os.fstat(fd).st_size // BLOCK
    order = random.Random(1)
    for _ in range(times):
        os.pread(fd, BLOCK, order.randrange(blocks) * BLOCK)


def set_limit(size):
    with open("group/squeeze", "w") as file:
        file.write(size)


def squeeze():
    \"\"\"上限を32 MiBに下げて、ページを追い出させ、512 MiBに戻す。\"\"\"
    for _ in range(100):
        try:
            set_limit("32M")
            break
        except OSError:  # 一度に追い出しきれなければ、EBUSYになる（v1）
            time.sleep(0.01)
    set_limit("512M")


def touch(m, seconds, out=True):
    \"\"\"seconds秒の間、追い出させては書き、最後に追い出させる。out=Falseなら、書くだけ。\"\"\"
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if out:
            squeeze()
        write(m)
    if out:
        squeeze()
"""

_VISIT = """\
import sys
from memory import visit

visit(sys.argv[1], 20000)
"""

_HOG = """\
from memory import allocate, write

write(allocate(128))
print("128 MiBに書き終えた")
"""


def run(world: World) -> None:
    """Watch the machine, two processes, a cgroup; then make memory short, and swap."""
    _set_up(world)
    _caching(world)
    _allocating(world)
    _sharing(world)
    _leaking(world)
    data = _pressing(world)
    _counting(world, data)
    _killing(world)
    _swapping(world)


# The stage


def _set_up(world: World) -> None:
    world.section("stage", "cgroupを用意する")
    world.say("groupは、作ったcgroupのファイルへの近道を集めたディレクトリーです。")
    world.file("memory.py", _MEMORY, unseen=True)
    _group(world)
    world.do("ls group")


_FILES = {
    "limit": ("memory.max", "memory.limit_in_bytes"),
    "swap": ("memory.swap.max", "memory.swappiness"),
    "squeeze": ("memory.high", "memory.limit_in_bytes"),
    "usage": ("memory.current", "memory.usage_in_bytes"),
    "hits": ("memory.events", "memory.failcnt"),
    "oom": ("memory.events", "memory.oom_control"),
    "stat": ("memory.stat", "memory.stat"),
}


def _group(world: World) -> None:
    cgroup.make(world, "memory", cgroup.new("memory"), "group", _FILES)


def _limit(world: World, mib: int) -> None:
    """Set the limit, without leave to swap (v1 asks how eager to be, v2 how much)."""
    world.ask("echo 0 > group/swap")
    world.do(f"echo {mib}M > group/limit")


def _inside(command: str) -> str:
    """Return a command that runs in the cgroup."""
    return f"echo $$ > group/procs; {command}"


def _prompt(world: World) -> Session:
    """Open a Python prompt in the cgroup."""
    here = world.python()
    world.name("pid", here.pid)
    world.do(f"echo {here.pid} > group/procs")
    here("from memory import *")
    return here


# The whole machine


class _Change(NamedTuple):
    available: int
    free: int
    rss: int = 0

    def __str__(self) -> str:
        return f"MemAvailable {self.available:+} MiB"


def _available(world: World, *, show: bool) -> tuple[int, int]:
    """Return MemAvailable and MemFree in MiB."""
    done = (world.do if show else world.ask)("grep -E '^Mem(Free|Available)' /proc/meminfo")
    free, available = (int(size) // 1024 for size in done.all(r"(\d+) kB"))
    return available, free


def _rss(world: World, here: Session, *, show: bool) -> int:
    done = (world.do if show else world.ask)(f"grep -E '^Vm(Size|RSS)' /proc/{here.pid}/status")
    return int(done.find(r"VmRSS:\s+(\d+)")[1]) // 1024


def _step(world: World, here: Session, statement: str, *, show: bool) -> _Change:
    """Return by how much a statement changes the process and the machine."""
    rss, (available, free) = _rss(world, here, show=show), _available(world, show=show)
    (here if show else here.ask)(statement)
    after = _rss(world, here, show=show), _available(world, show=show)
    return _Change(after[1][0] - available, after[1][1] - free, after[0] - rss)


def _trials(world: World, here: Session, *statements: str) -> list[_Change]:
    """Run statements several times, show the last; return the median change of each.

    The memory is kept: what a process gives back may wait in a CPU's list, not counted as free.
    """
    changes = []
    for number in range(_ROUNDS):
        show = number == _ROUNDS - 1
        changes.append([_step(world, here, one, show=show) for one in statements])
        here.ask("kept = [*globals().get('kept', []), m]")
    return [sorted(mine)[_ROUNDS // 2] for mine in zip(*changes, strict=True)]


def _costs_nothing(change: _Change) -> bool:
    return change.rss < _BIG // 2 and change.available > -_BIG // 2


def _costs_memory(change: _Change) -> bool:
    return change.rss >= _BIG * 3 // 4 and change.available <= -_BIG // 2


def _both(change: _Change) -> str:
    return f"VmRSS {change.rss:+} MiB、{change}"


def _spared(world: World, command: str) -> tuple[bool, str]:
    """Return whether a command took free memory and left what is available.

    The gap counts: pages from a CPU's own list are in neither number.
    """
    changes = []
    for number in range(_ROUNDS):
        show = number == _ROUNDS - 1
        available, free = _available(world, show=show)
        (world.do if show else world.ask)(command.format(number, number * _BIG))
        after = _available(world, show=show)
        changes.append(_Change(after[0] - available, after[1] - free))
    change = sorted(changes)[_ROUNDS // 2]
    holds = change.available - change.free >= _BIG // 2 and change.available > -_BIG // 2
    return holds, f"MemFree {change.free:+} MiB、{change}"


def _caching(world: World) -> None:
    world.section("caching", f"{_BIG} MiBのファイルを読む")
    world.say(f"大きなファイルをキャッシュを通さずに作り、{_BIG} MiBずつ読みます。")
    world.say(f"MemFreeとMemAvailableは、マシン全体の数字です。{_MEDIAN}")
    data = f"{world.disk}/big"
    world.do(
        f"dd if=/dev/zero of={data} bs=4M count={_ROUNDS * _BIG // 4} oflag=direct status=none"
    )
    read = f"dd if={data} of=/dev/null bs=1M skip={{1}} count={_BIG} status=none"
    holds, seen = _spared(world, read)
    world.fact("cache-leaves-available", holds, seen=seen)
    world.do(f"rm {data}")


def _allocating(world: World) -> None:
    world.section("allocating", f"{_BIG} MiBを確保し、その後で書く")
    world.say("VmRSSはこのプロセス、MemAvailableはマシン全体の数字です。")
    world.say(_MEDIAN)
    here = world.python()
    world.name("pid", here.pid)
    here("from memory import *")
    changes = _trials(world, here, f"m = allocate({_BIG})", "write(m)")
    holds, seen = _costs_nothing(changes[0]), _both(changes[0])
    world.fact("untouched-memory-costs-nothing", holds, seen=seen)
    holds, seen = _costs_memory(changes[1]), _both(changes[1])
    world.fact("written-memory-lowers-available", holds, seen=seen)
    here.close()


# Two processes


def _rollup(world: World, pid: int) -> tuple[int, int]:
    done = world.do(f"grep -E '^(Rss|Pss):' /proc/{pid}/smaps_rollup")
    rss, pss = (int(size) // 1024 for size in done.all(r"(\d+) kB"))
    return rss, pss


def _sums(world: World, child: str) -> tuple[int, int]:
    """Fork a process that has written 128 MiB; return the sums of RSS and of PSS."""
    here = world.python()
    world.name("pid", here.pid)
    here("from memory import *")
    here("m = allocate(128)")
    here("write(m)")
    here("ready, done = os.pipe()")
    here(f"child = os.fork() or ({child}, os.write(done, b'.'), signal.pause())")
    here("os.read(ready, 1)")
    pid = int(here.ask("print(child)"))
    world.name("pid", pid)
    sizes = _rollup(world, here.pid), _rollup(world, pid)
    here.ask("os.kill(child, 9); os.wait()")
    here.close()
    return sum(rss for rss, _ in sizes), sum(pss for _, pss in sizes)


def _sharing(world: World) -> None:
    world.section("sharing", "128 MiBを、子プロセスと共有する")
    world.say("128 MiBに書いてからforkします。親と子は、同じ物理メモリを見ています。")
    rss, pss = _sums(world, "0")
    world.fact("rss-counts-shared-pages-twice", rss >= 2 * 128, seen=f"RSSの和は{rss} MiB")
    world.fact("pss-counts-them-once", _once(pss), seen=f"PSSの和は{pss} MiB")


def _once(pss: int) -> bool:
    return 128 <= pss < 128 * 3 // 2


# A leak, or the cache


class _Use(NamedTuple):
    usage: int
    anon: int
    file: int

    def __sub__(self, other: _Use) -> _Use:
        return _Use(*(new - old for new, old in zip(self, other, strict=True)))

    def __str__(self) -> str:
        return f"使用量{self.usage:+}、匿名{self.anon:+}、ファイル{self.file:+} MiB"


def _use(world: World) -> _Use:
    """Show a cgroup's memory and return it in MiB (v1 calls anon rss, and file cache)."""
    usage = int(world.do("cat group/usage").text)
    done = world.do("grep -E '^(anon|file|rss|cache) ' group/stat")
    anon = int(done.find(r"^(?:anon|rss) (\d+)")[1])
    file = int(done.find(r"^(?:file|cache) (\d+)")[1])
    return _Use(usage >> 20, anon >> 20, file >> 20)


def _data(world: World, mib: int) -> str:
    data = f"{world.disk}/data"
    world.do(f"dd if=/dev/zero of={data} bs=1M count={mib} oflag=direct status=none")
    return data


def _leaking(world: World) -> None:
    world.section("leaking", "漏れとキャッシュを見分ける")
    world.say("どちらも、cgroupの使用量は128 MiBほど増えます。増えた中身をmemory.statで見ます。")
    world.say("cgroup v2のanonとfileは、v1ではrssとcacheという名前です。")
    _limit(world, _ROOM)
    data = _data(world, 128)
    here = _prompt(world)
    before = _use(world)
    here("kept = [os.urandom(1 << 20) for _ in range(128)]")
    leak, before = _use(world) - before, _use(world)
    world.fact("leak-grows-anon", _is_anon(leak), seen=str(leak))
    here(f"read({data!r})")
    cache = _use(world) - before
    world.fact("reading-grows-file", _is_file(cache), seen=str(cache))
    here.close()


def _is_anon(use: _Use) -> bool:
    return use.anon >= 96 and use.file < 32


def _is_file(use: _Use) -> bool:
    return use.file >= 96 and use.anon < 32


# Pressure


class _Stall(NamedTuple):
    """Microseconds of /proc/pressure/memory, and pages swapped in or out."""

    some: int
    full: int
    swapped: int


def _stall(world: World, *, show: bool) -> _Stall:
    look = world.do if show else world.ask
    some, full = map(int, look("cat /proc/pressure/memory").all(r"total=(\d+)"))
    swapped = world.ask("grep -E '^pswp(in|out) ' /proc/vmstat").all(r"(\d+)$")
    return _Stall(some, full, sum(map(int, swapped)))


def _stalled(world: World, data: str, *, show: bool) -> _Stall:
    """Return what one piece of work in the cgroup adds to the machine's pressure."""
    before = _stall(world, show=show)
    (world.do if show else world.ask)(_inside(f"python3 visit.py {data}"))
    after = _stall(world, show=show)
    return _Stall(*(new - old for new, old in zip(after, before, strict=True)))


def _rounds(world: World, data: str, limits: tuple[int, ...]) -> list[list[_Stall]]:
    """Do the same work several times under each limit; show the last."""
    stalls = []
    for limit in limits:
        _limit(world, limit)
        mine = [_stalled(world, data, show=False) for _ in range(_ROUNDS - 1)]
        stalls.append([*mine, _stalled(world, data, show=True)])
    return stalls


def _least(stalls: list[_Stall]) -> int:
    """Return the least some in milliseconds: others on this machine can only add to it."""
    return min(stall.some for stall in stalls) // 1000


def _pressing(world: World) -> str:
    world.section("pressing", "作業に使う量より、上限を小さくする")
    world.say(f"{_SET} MiBのファイルのあちこちを読む、同じ作業を、上限ごとに3回行います。")
    world.say("totalは、止まっていた時間の累計（マイクロ秒）です。3回目だけを示します。")
    world.say("CPUごとの集計の丸めで、fullが1マイクロ秒ほど上回ることは、数えません。")
    world.file("visit.py", _VISIT)
    data = _data(world, _SET)
    tight, roomy = _rounds(world, data, (_LIMIT, _ROOM))
    short, enough = _least(tight), _least(roomy)
    seen = f"最小で、上限{_LIMIT} MiBは+{short}ミリ秒、{_ROOM} MiBは+{enough}ミリ秒"
    world.fact("short-memory-raises-psi", _pressed(short, enough), seen=seen)
    holds = all(stall.full <= stall.some + _ROUNDING for stall in tight + roomy)
    last = tight[-1]
    seen = f"some +{last.some // 1000}ミリ秒、full +{last.full // 1000}ミリ秒"
    world.fact("full-is-part-of-some", holds, seen=seen)
    swapped = min(stall.swapped for stall in tight)
    seen = f"スワップの出入り{swapped}ページ、some +{short}ミリ秒"
    world.fact("psi-rises-without-swap", swapped == 0 and short > 5 * enough, seen=seen)
    return data


def _pressed(short: int, enough: int) -> bool:
    return short >= 50 and short > 5 * enough


def _hits(world: World) -> int:
    return int(world.do("cat group/hits").find(r"^(?:max )?(\d+)$")[1])


def _counting(world: World, data: str) -> None:
    world.section("counting", "上限に達した回数を数える")
    world.say("cgroup v2ではmemory.eventsのmax、v1ではmemory.failcntです。")
    added = _added(world, data, _LIMIT)
    world.say("捨てたページを、すぐに読み直した回数（refault）も分かります。")
    world.do("grep -E '^workingset_refault' group/stat")
    world.fact("limit-hits-are-counted", added > 0, seen=f"+{added}回")


def _added(world: World, data: str, limit: int) -> int:
    _limit(world, limit)
    before = _hits(world)
    world.do(_inside(f"python3 visit.py {data}"))
    return _hits(world) - before


# The OOM killer


_KILLED = re.compile(r"^oom-kill:constraint=\S+", re.M)


def _logged(world: World) -> list[str]:
    """Return the constraint of each kill in the kernel's log."""
    return _KILLED.findall(world.ask("dmesg -t").text)


def _kills(world: World) -> int:
    return int(world.do("grep ^oom_kill' ' group/oom").text.split()[1])


def _killed(world: World, limit: int) -> tuple[int, list[str]]:
    """Write 128 MiB under a limit; return the exit code and the kills in our cgroup logged."""
    name = (world.folder / "group/oom").resolve().parent.name
    world.file("hog.py", _HOG)
    _limit(world, limit)
    code = world.do(_inside("exec python3 hog.py"), code=None).code
    return code, [line for line in _logged(world) if name in line]


_OOM = "dmesg -t | grep -E 'invoked oom-killer|^memory: usage|^oom-kill:|out of memory: K'"


def _killing(world: World) -> None:
    world.section("killing", "OOM killerのログを読む")
    world.say(f"スワップを使わせずに、上限{_LIMIT} MiBのcgroupで128 MiBに書きます。")
    code, logged = _killed(world, _LIMIT)
    hide = cut(r"(?<=memcg=)[^,]+", r"(?<=pid=)\d+", r"(?<=process )\d+")
    world.do(f"{_OOM} | tail -n 4", show=hide)
    _kills(world)
    holds = any("CONSTRAINT_MEMCG" in line for line in logged)
    seen = f"終了コード{code}、CONSTRAINT_MEMCGの行が{len(logged)}行"
    world.fact("oom-log-names-the-cgroup", holds, seen=seen)


# Swap


def _add_swap(world: World) -> None:
    swapfile = f"{world.disk}/swapfile"
    world.undo(f"swapoff {swapfile}")
    world.do(f"dd if=/dev/zero of={swapfile} bs=1M count=256 status=none")
    world.do(f"chmod 600 {swapfile}")
    world.do(f"mkswap {swapfile}", show=cut(r"(?<=UUID=)\S+"))
    world.do(f"swapon --priority 32767 {swapfile}")


def _columns(done: Done) -> tuple[int, int]:
    """Return the sums of vmstat's si and so, without the first row (since boot)."""
    rows = [line.split() for line in done.lines]
    si, so = rows[1].index("si"), rows[1].index("so")
    return sum(int(row[si]) for row in rows[3:]), sum(int(row[so]) for row in rows[3:])


def _worker(world: World) -> Session:
    """Open a prompt in the cgroup, with a high limit and leave to swap."""
    _limit(world, _ROOM)
    eager = (world.folder / "group/swap").resolve().name == "memory.swappiness"
    world.ask(f"echo {'60' if eager else 'max'} > group/swap")
    here = _prompt(world)
    here(f"m = allocate({_SET})")
    here("write(m)")
    return here


def _work(world: World, here: Session, statement: str) -> tuple[int, int]:
    """Return what vmstat sees go in and out while a process works for some seconds."""
    here.begin(statement)
    done = world.do("vmstat -w 1 4")
    here.finish()
    return _columns(done)


def _swapping(world: World) -> None:
    world.section("swapping", "スワップを出し入れする")
    world.say("このマシンに、優先度の高いスワップを一時的に足します。")
    _add_swap(world)
    world.say("上限を32 MiBに下げて追い出させ、512 MiBに戻してから、96 MiBのすべてに書きます。")
    world.say("これを4秒間繰り返す間の、vmstatを見ます。")
    here = _worker(world)
    si, so = _work(world, here, "touch(m, 4)")
    world.fact("swapping-shows-in-vmstat", _swaps(si, so), seen=f"si {si}、so {so}（3秒の和）")
    world.say("手を止めます。スワップは使われたままです。1行目は起動からの平均です。")
    world.do(f"grep ^VmSwap /proc/{here.pid}/status")
    si, so, swap = _idle(world, here)
    seen = f"VmSwap {swap} MiB、si {si}、so {so}"
    world.fact("used-swap-is-not-swapping", _quiet(si, so, swap), seen=seen)
    here.close()


def _swaps(si: int, so: int) -> bool:
    return si > 100 and so > 100


def _idle(world: World, here: Session) -> tuple[int, int, int]:
    """Let vmstat look on while nothing is done; take the calmest of three."""
    looks = [world.do("vmstat -w 1 2")]
    looks += [world.ask("vmstat -w 1 2") for _ in range(2)]
    si, so = min(_columns(done) for done in looks)
    swap = world.ask(f"grep ^VmSwap /proc/{here.pid}/status").text.split()[1]
    return si, so, int(swap) // 1024


def _quiet(si: int, so: int, swap: int) -> bool:
    return si <= 100 and so <= 100 and swap >= 16


def control(world: World) -> None:
    """Take the causes away: other memory, no sharing, high limits, no swap."""
    _set_up(world)
    _elsewhere(world)
    _unshared(world)
    _other_kind(world)
    data = _enough_memory(world)
    _never_full(world, data)
    _no_kill(world)
    _no_swapping(world)


def _elsewhere(world: World) -> None:
    world.section(
        "elsewhere", "確保の代わりに書き、書く代わりに読み、ディスクの代わりにtmpfsに書く"
    )
    here = world.python()
    world.name("pid", here.pid)
    here("from memory import *")
    (change,) = _trials(world, here, f"m = allocate({_BIG}); write(m)")
    why, seen = "書けば、物理メモリが割り当てられる", _both(change)
    world.control("untouched-memory-costs-nothing", _costs_nothing(change), why=why, seen=seen)
    (change,) = _trials(world, here, f"m = allocate({_BIG}); sum(m[:: mmap.PAGESIZE])")
    why, seen = "読むだけなら、0のページを見せるだけで済む", _both(change)
    world.control("written-memory-lowers-available", _costs_memory(change), why=why, seen=seen)
    here.close()
    write = f"dd if=/dev/zero of=/tmp/big{{0}} bs=1M count={_BIG} status=none"
    holds, seen = _spared(world, write)
    world.do("rm /tmp/big?")
    why = "tmpfsのファイルは捨てられず、MemFreeとMemAvailableの差は開かない"
    world.control("cache-leaves-available", holds, why=why, seen=seen)


def _unshared(world: World) -> None:
    world.section("unshared", "子が、自分のページに書く")
    _, pss = _sums(world, "write(m)")
    why = "書いたページは別々になり、PSSの和も2つ分になる"
    world.control("pss-counts-them-once", _once(pss), why=why, seen=f"PSSの和は{pss} MiB")
    world.section("alone", "forkせず、1つのプロセスだけを数える")
    here = world.python()
    world.name("pid", here.pid)
    here("from memory import *")
    here("m = allocate(128)")
    here("write(m)")
    rss, _ = _rollup(world, here.pid)
    why = "共有する相手がなければ、1回しか数えない"
    seen = f"RSSは{rss} MiB"
    world.control("rss-counts-shared-pages-twice", rss >= 2 * 128, why=why, seen=seen)
    here.close()


def _other_kind(world: World) -> None:
    world.section("other-kind", "漏らす代わりに捨て、読む代わりにO_DIRECTで読む")
    _limit(world, _ROOM)
    data = _data(world, 128)
    here = _prompt(world)
    before = _use(world)
    here("for _ in range(128): kept = os.urandom(1 << 20)")
    use = _use(world) - before
    why = "毎回手放せば、匿名ページは増え続けない"
    world.control("leak-grows-anon", _is_anon(use), why=why, seen=str(use))
    before = _use(world)
    world.do(_inside(f"dd if={data} of=/dev/null bs=1M iflag=direct status=none"))
    use = _use(world) - before
    why = "キャッシュを通さなければ、ファイルの分は増えない"
    world.control("reading-grows-file", _is_file(use), why=why, seen=str(use))
    here.close()


def _enough_memory(world: World) -> str:
    world.section("enough-memory", f"上限を、どちらも{_ROOM} MiBにする")
    world.file("visit.py", _VISIT)
    data = _data(world, _SET)
    one, other = _rounds(world, data, (_ROOM, _ROOM))
    first, second = _least(one), _least(other)
    seen = f"最小で、+{first}ミリ秒と+{second}ミリ秒"
    why = "作業に使う量が上限に収まれば、PSIは増えない"
    world.control("short-memory-raises-psi", _pressed(first, second), why=why, seen=seen)
    swapped, holds = min(stall.swapped for stall in one), _pressed(first, second)
    seen = f"スワップの出入り{swapped}ページ、some +{first}ミリ秒"
    world.control("psi-rises-without-swap", swapped == 0 and holds, why=why, seen=seen)
    return data


def _never_full(world: World, data: str) -> None:
    world.section("never-full", "上限に達しない")
    added = _added(world, data, _ROOM)
    why = "上限に達しなければ、数えられない"
    world.control("limit-hits-are-counted", added > 0, why=why, seen=f"+{added}回")


def _no_kill(world: World) -> None:
    world.section("no-kill", f"上限を{_ROOM} MiBにして、128 MiBに書く")
    code, logged = _killed(world, _ROOM)
    why = "終了させられなければ、ログにも残らない"
    world.control("oom-log-names-the-cgroup", bool(logged), why=why, seen=f"終了コード{code}")


def _no_swapping(world: World) -> None:
    world.section("no-swapping", "同じスワップがあっても、出さない")
    _add_swap(world)
    here = _worker(world)
    si, so = _work(world, here, "touch(m, 4, out=False)")
    why = "出さずに書くだけなら、スワップは出入りしない"
    world.control("swapping-shows-in-vmstat", _swaps(si, so), why=why, seen=f"si {si}、so {so}")
    world.section("touching", "スワップが使われたまま、出し入れを続ける")
    si, so = _work(world, here, "touch(m, 4)")
    swap = int(world.do(f"grep ^VmSwap /proc/{here.pid}/status").text.split()[1]) // 1024
    why = "触り続ければ、siとsoが増える"
    seen = f"VmSwap {swap} MiB、si {si}、so {so}"
    world.control("used-swap-is-not-swapping", _quiet(si, so, swap), why=why, seen=seen)
    here.close()
