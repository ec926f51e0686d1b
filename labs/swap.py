"""Which pages a cgroup's limit drives out of memory, where they go and how they come back."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

from labs.harness import Done, Lab, Session, World, cgroup, cut, program

_NEEDED = 1 << 20  # kB


def _unfit() -> str:
    """Return why this machine is not fit, or nothing."""
    if not cgroup.parent("memory"):
        return "メモリを制限できるcgroup（memoryコントローラー）のあるマシンで動かしてください"
    if _zswap():
        return "zswapを切ってから動かしてください（スワップの回数が数えられません）"
    found = re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())
    if not found or int(found[1]) < _NEEDED:
        return "使えるメモリ（MemAvailable）が1 GiB以上あるときに動かしてください"
    return ""


def _zswap() -> bool:
    enabled = Path("/sys/module/zswap/parameters/enabled")
    return enabled.exists() and enabled.read_text().strip() == "Y"


_FILES = {
    "limit": ("memory.max", "memory.limit_in_bytes"),
    "swap": ("memory.swap.max", "memory.memsw.limit_in_bytes"),
}

LAB = Lab(
    title="メモリの上限とスワップ",
    chapter="os/swap-and-reclaim",
    shows="上限64 MiBのcgroupの中で、どのページが捨てられ、スワップに出て、戻るのかを数えます。",
    facts={
        "watermarks-are-ordered": "空きメモリの水準は、min、low、highの順に高くなる",
        "clean-file-pages-are-dropped": "クリーンなファイルのページは、スワップに出さずに捨てる",
        "anonymous-pages-go-to-swap": "匿名ページは、上限を超えると、捨てられずにスワップに出る",
        "swap-leaves-the-address-space": "スワップに出ても、仮想アドレス空間の広さは変わらない",
        "pswpout-counts-pages": "スワップに出たページの数だけ、pswpoutが増える",
        "spare-memory-brings-nothing-back": "メモリに余裕ができても、触るまでスワップから戻らない",
        "touch-is-a-major-fault": "スワップにあるページに触ると、メジャーフォルトで元の内容が戻る",
        "locked-pages-stay": "mlockしたページは、スワップに出ない",
        "tmpfs-goes-to-swap": "tmpfsのファイルも、スワップに出る",
        "no-swap-means-oom-kill": "スワップがなければ、上限を超えるとOOM killerに終了させられる",
        "oom-kill-is-logged": "OOM killerの記録は、カーネルのログに残る",
        "swapoff-reads-everything-back": "swapoffは、スワップにあるページをすべてメモリへ戻す",
    },
    needs=(
        program("swapon", "mount"),
        program("mkswap", "util-linux"),
        program("python3"),
        program("dmesg", "util-linux"),
    ),
    seconds=8,
    limit=120,
    alone=True,
    root=True,
    disk=True,
    machine_wide=True,
    unfit=_unfit,
)

_SIZE = 128
_LIMIT = 64
_ZONES = (
    '/^Node/ {z = $NF} $1 ~ /^(min|low|high)$/ {z = z " " $1 " " $2} '
    '$1 == "managed" && $2 {print z}'
)

_PAGES = """\
import array, ctypes, mmap, os, resource

libc = ctypes.CDLL(None, use_errno=True)


def allocate(mib, lock=False):
    \"\"\"匿名ページを確保する。lock=Trueならmlockする。\"\"\"
    m = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    m.madvise(mmap.MADV_NOHUGEPAGE)
    if lock:
        address = ctypes.addressof(ctypes.c_char.from_buffer(m))
        if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(len(m))):
            raise OSError(ctypes.get_errno(), "mlock")
    return m


def write(m):
    \"\"\"すべてのページに、ページの番号を書く。\"\"\"
    for at in range(0, len(m), mmap.PAGESIZE):
        m[at : at + 4] = (at // mmap.PAGESIZE).to_bytes(4, "little")


def read(m):
    \"\"\"すべてのページを読み、書いた内容のままかと、メジャーフォルトの回数を答える。\"\"\"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    pages = range(0, len(m), mmap.PAGESIZE)
    same = all(int.from_bytes(m[at : at + 4], "little") == at // mmap.PAGESIZE for at in pages)
    major = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - before
    print("同じ内容" if same else "違う内容", "メジャーフォルト", major)


def swapped(m):
    \"\"\"この範囲のうち、スワップにあるkBを答える（pagemapの62番目のビット）。\"\"\"
    start = ctypes.addressof(ctypes.c_char.from_buffer(m)) // mmap.PAGESIZE
    with open("/proc/self/pagemap", "rb") as pagemap:
        pagemap.seek(start * 8)
        entries = array.array("Q", pagemap.read(len(m) // mmap.PAGESIZE * 8))
    print(sum(entry >> 62 & 1 for entry in entries) * mmap.PAGESIZE // 1024, "kB")
"""

_HOG = """\
from pages import allocate, write

write(allocate(128))
print("128 MiBに書き終えた")
"""


def run(world: World) -> None:
    """Fill a small cgroup with file pages, anonymous pages and tmpfs, with and without swap."""
    _watermarks(world)
    _set_up(world)
    _file_pages(world)
    here = _anonymous(world)
    _spare_memory(world, here)
    _coming_back(world, here)
    _locked(world)
    _tmpfs(world)
    _out_of_memory(world)
    _swapoff(world)


def _watermarks(world: World) -> None:
    world.section("watermarks", "回収が始まる水準を見る")
    world.say("空きがlowより減るとkswapdが裏で回収を始め、highまで戻すと止まります。")
    world.say("minまで減ると、メモリを求めたプロセス自身が回収を手伝わされます。単位はページです。")
    done = world.do(f"awk '{_ZONES}' /proc/zoneinfo")
    marks = [tuple(map(int, zone)) for zone in _marks(done)]
    holds = marks and all(low < high for zone in marks for low, high in pairwise(zone))
    world.fact("watermarks-are-ordered", holds, seen=f"{len(marks)}個のゾーンのすべてで")


def _marks(done: Done) -> list[str]:
    """Return the watermarks of each zone that has memory."""
    return done.all(r"^\w+ min (\d+) low (\d+) high (\d+)$")


# The stage


def _set_up(world: World) -> None:
    world.section("stage", "スワップファイルと、上限64 MiBのcgroupを用意する")
    world.say("このマシンに、優先度の高いスワップを一時的に足します。")
    swapfile = f"{world.disk}/swapfile"
    world.undo(f"swapoff {swapfile}")
    world.do(f"dd if=/dev/zero of={swapfile} bs=1M count=256 status=none")
    world.do(f"chmod 600 {swapfile}")
    world.do(f"mkswap {swapfile}", show=cut(r"(?<=UUID=)\S+"))
    world.do(f"swapon --priority 32767 {swapfile}")
    world.do("swapon --show=NAME,TYPE,SIZE,USED,PRIO")
    world.file("pages.py", _PAGES, unseen=True)
    _group(world)
    world.say("groupは、作ったcgroupの設定ファイルへの近道を集めたディレクトリーです。")
    world.do(f"echo {_LIMIT}M > group/limit")


def _group(world: World) -> None:
    cgroup.make(world, "memory", cgroup.new("memory"), "group", _FILES)


def _inside(command: str) -> str:
    """Return a command that runs in the cgroup."""
    return f"echo $$ > group/procs; {command}"


def _prompt(world: World) -> Session:
    """Open a Python prompt in the cgroup."""
    here = world.python()
    world.name("pid", here.pid)
    world.do(f"echo {here.pid} > group/procs")
    here("from pages import *")
    return here


def _kilobytes(done: Done) -> dict[str, int]:
    return {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", done.text, re.M)}


def _memory(world: World, here: Session) -> dict[str, int]:
    """Show a process's address space, memory and swap, and return them in MiB."""
    done = world.do(f"grep -E '^Vm(Size|RSS|Swap)' /proc/{here.pid}/status")
    return {name: size // 1024 for name, size in _kilobytes(done).items()}


def _used(world: World) -> int:
    """Show how much of the swap file is used, and return it in MiB."""
    done = world.do("swapon --show=NAME,USED --bytes --noheadings | grep ^/tmp/disk")
    return int(done.text.split()[1]) >> 20


def _pswpout(world: World) -> int:
    return int(world.do("grep ^pswpout /proc/vmstat").text.split()[1])


# Pages that leave


def _file_pages(world: World) -> None:
    world.section("file-pages", "上限より大きいファイルを読む")
    world.say("128 MiBのファイルを、上限64 MiBの中で読み、キャッシュに残った量を見ます。")
    data = f"{world.disk}/data"
    world.do(f"dd if=/dev/zero of={data} bs=1M count={_SIZE} oflag=direct status=none")
    world.do(_inside(f"cat {data} > /dev/null"))
    cached = int(world.do(f"fincore -n -b -o res {data}").text) >> 20
    used = _used(world)
    seen = f"キャッシュ{cached} MiB、スワップ{used} MiB"
    world.fact("clean-file-pages-are-dropped", _dropped(cached, used), seen=seen)


def _dropped(cached: int, used: int) -> bool:
    return cached <= _LIMIT and used == 0


def _anonymous(world: World) -> Session:
    world.section("anonymous", "上限より大きい匿名ページに書く")
    world.say(
        "プログラムが128 MiBを確保し、すべてのページに書きます。行き先のファイルはありません。"
    )
    world.say(
        "確保（allocate）、書く（write）、読む（read）は、小さなモジュールに用意してあります。"
    )
    here = _prompt(world)
    here(f"m = allocate({_SIZE})")
    before, out = _memory(world, here), _pswpout(world)
    here("write(m)")
    after, out = _memory(world, here), _pswpout(world) - out
    seen = f"VmRSS {after['VmRSS']} MiB、VmSwap {after['VmSwap']} MiB"
    world.fact("anonymous-pages-go-to-swap", _swapped_out(after), seen=seen)
    seen = f"VmSize {before['VmSize']} → {after['VmSize']} MiB"
    holds = before["VmSize"] == after["VmSize"] and _swapped_out(after)
    world.fact("swap-leaves-the-address-space", holds, seen=seen)
    pages = after["VmSwap"] * (1 << 20) // os.sysconf("SC_PAGESIZE")
    seen = f"スワップに{pages}ページ、pswpout +{out}"
    world.fact("pswpout-counts-pages", _counted(out), seen=seen)
    return here


def _swapped_out(memory: dict[str, int]) -> bool:
    return memory["VmSwap"] >= (_SIZE - _LIMIT) * 3 // 4


def _counted(out: int) -> bool:
    return out * os.sysconf("SC_PAGESIZE") >= (_SIZE - _LIMIT) * 3 // 4 << 20


def _spare_memory(world: World, here: Session) -> None:
    world.section("spare-memory", "上限を上げて、余裕を作る")
    world.say("スワップの使用量が残っているだけでは、今メモリが足りないとは言えません。")
    world.do("echo 512M > group/limit")
    after = _memory(world, here)
    seen = f"VmSwapは{after['VmSwap']} MiBのまま"
    world.fact("spare-memory-brings-nothing-back", _swapped_out(after), seen=seen)


def _faults(answer: str) -> int:
    return int(answer.rsplit(maxsplit=1)[-1])


def _coming_back(world: World, here: Session) -> None:
    world.section("coming-back", "スワップにあるページに触る")
    answer = here("read(m)")
    _memory(world, here)
    world.say("近くのページもまとめて読むので、フォルトの回数はページの数より少なくなります。")
    world.say("VmSwapは概数なので、すべて戻っても0にならないことがあります。")
    holds = _came_back(answer)
    world.fact("touch-is-a-major-fault", holds, seen=answer)
    here.close()


def _came_back(answer: str) -> bool:
    return answer.startswith("同じ内容") and _faults(answer) > 0


def _swapped(answer: str) -> int:
    return int(answer.split(maxsplit=1)[0])


def _locked(world: World) -> None:
    world.section("locked", "一部だけをmlockする")
    world.say("16 MiBをmlockしてから、残りで上限を超えます。スワップに出た量を比べます。")
    world.do(f"echo {_LIMIT}M > group/limit")
    kept, other = _lock_and_fill(world, lock=True)
    seen = f"mlockした16 MiBのうち{kept} kB、ほかは{other} kB"
    world.fact("locked-pages-stay", _stayed(kept, other), seen=seen)


def _lock_and_fill(world: World, *, lock: bool) -> tuple[int, int]:
    """Fill 16 MiB first and 96 MiB after; return how much of each is in swap."""
    here = _prompt(world)
    here(f"first = allocate(16, lock={lock})")
    here("write(first)")
    here("rest = allocate(96)")
    here("write(rest)")
    sizes = _swapped(here("swapped(first)")), _swapped(here("swapped(rest)"))
    here.close()
    return sizes


def _stayed(kept: int, other: int) -> bool:
    return kept == 0 < other


def _tmpfs(world: World) -> None:
    world.section("tmpfs", "tmpfsに128 MiBのファイルを書く")
    used = _write_file(world, "/tmp/in-memory")
    world.fact("tmpfs-goes-to-swap", _file_in_swap(used), seen=f"スワップ +{used} MiB")
    world.do("rm /tmp/in-memory")


def _write_file(world: World, name: str) -> int:
    """Write 128 MiB in the cgroup, and return by how much swap grew."""
    before = _used(world)
    world.do(_inside(f"dd if=/dev/zero of={name} bs=1M count={_SIZE} status=none"))
    return _used(world) - before


def _file_in_swap(used: int) -> bool:
    return used >= (_SIZE - _LIMIT) * 3 // 4


# Without swap


def _allow_swap(world: World, *, allow: bool) -> None:
    """Let the cgroup swap or not (v1 limits memory and swap together)."""
    together = (world.folder / "group/swap").resolve().name.startswith("memory.memsw")
    if allow:
        world.ask("echo " + ("-1" if together else "max") + " > group/swap")
    else:
        world.ask("echo " + (f"{_LIMIT}M" if together else "0") + " > group/swap")


_KILLED = re.compile(r".*Memory cgroup out of memory: Killed process \d+ \(python3\)")


def _kills(world: World) -> set[str]:
    """Return the kills in the kernel's log, told apart by their times."""
    return set(_KILLED.findall(world.ask("dmesg").text))


def _hog(world: World) -> tuple[int, int]:
    """Write more than the limit; return the exit code and how many kills were logged."""
    world.file("hog.py", _HOG)
    before = _kills(world)
    code = world.do(_inside("exec python3 hog.py"), code=None).code
    return code, len(_kills(world) - before)


def _out_of_memory(world: World) -> None:
    world.section("out-of-memory", "スワップを使わせずに、上限を超える")
    world.say("cgroupにスワップを禁じて、同じ128 MiBに書きます。")
    _allow_swap(world, allow=False)
    code, logged = _hog(world)
    world.say("終了コードは、128にSIGKILLの9を足した137です。")
    world.fact("no-swap-means-oom-kill", code == 137, seen=f"終了コード{code}")
    text = "dmesg | grep 'Memory cgroup out of memory' | tail -n 1"
    world.do(text, show=cut(r"^\[.*?\]", r"(?<=process )\d+", r"\d+kB", r"UID:\d+"))
    world.fact("oom-kill-is-logged", logged > 0, seen=f"ログが{logged}行増えた")
    _allow_swap(world, allow=True)


def _swapoff(world: World) -> None:
    world.section("swapoff", "swapoffで、スワップの中身を戻す")
    world.say("スワップにページを出してから、上限を上げ、スワップをやめます。")
    here = _prompt(world)
    here(f"m = allocate({_SIZE})")
    here("write(m)")
    _memory(world, here)
    world.do("echo 512M > group/limit")
    world.say("読み戻す空きメモリがなければ、swapoffは失敗します。")
    world.do(f"swapoff {world.disk}/swapfile")
    after = _memory(world, here)
    answer = here("read(m)")
    seen = f"VmSwap {after['VmSwap']} MiB、{answer}"
    world.fact("swapoff-reads-everything-back", _all_back(after, answer), seen=seen)


def _all_back(memory: dict[str, int], answer: str) -> bool:
    """Tell whether nothing is left in swap; code of the prompt itself may fault once or twice."""
    found = re.fullmatch(r"同じ内容 メジャーフォルト (\d+)", answer)
    return memory["VmSwap"] == 0 and found is not None and int(found[1]) < 10


def control(world: World) -> None:
    """Take the causes away: a high limit, no lock, a disk, swap allowed, no swapoff."""
    _set_up(world)
    _unlocked(world)
    _on_disk(world)
    _with_swap(world)
    _no_swapoff(world)
    _enough_memory(world)


def _unlocked(world: World) -> None:
    world.section("unlocked", "mlockしない")
    kept, other = _lock_and_fill(world, lock=False)
    why = "mlockしなければ、先に書いたページもスワップに出る"
    seen = f"先の16 MiBのうち{kept} kB、ほかは{other} kB"
    world.control("locked-pages-stay", _stayed(kept, other), why=why, seen=seen)


def _on_disk(world: World) -> None:
    world.section("on-disk", "tmpfsではなくディスクに書く")
    used = _write_file(world, f"{world.disk}/file")
    why = "ディスクのファイルは、元のファイルへ書き出せるので、スワップに出ない"
    world.control("tmpfs-goes-to-swap", _file_in_swap(used), why=why, seen=f"{used:+} MiB")


def _with_swap(world: World) -> None:
    world.section("with-swap", "スワップがあるときに、上限を超える")
    code, logged = _hog(world)
    why = "スワップに出せる間は、終了させられない"
    seen = f"終了コード{code}"
    world.control("no-swap-means-oom-kill", code == 137, why=why, seen=seen)
    why = "終了させられなければ、ログにも残らない"
    world.control("oom-kill-is-logged", logged > 0, why=why, seen=f"ログは{logged}行")


def _no_swapoff(world: World) -> None:
    world.section("no-swapoff", "swapoffせずに、上限だけを上げて触る")
    here = _prompt(world)
    here(f"m = allocate({_SIZE})")
    here("write(m)")
    world.do("echo 512M > group/limit")
    before = _memory(world, here)
    answer = here("read(m)")
    after = _memory(world, here)
    why = "swapoffしなければ、ページはスワップにあり、触ったときに読み戻す"
    seen = f"VmSwap {before['VmSwap']} MiB、{answer}"
    holds = _all_back(before, answer)
    world.control("swapoff-reads-everything-back", holds, why=why, seen=seen)
    why = "触れば戻るので、VmSwapが減る"
    seen = f"VmSwap {before['VmSwap']} → {after['VmSwap']} MiB"
    fact = "spare-memory-brings-nothing-back"
    world.control(fact, _swapped_out(after), why=why, seen=seen)
    here.close()


def _enough_memory(world: World) -> None:
    world.section("enough-memory", "上限を512 MiBにして、同じことをする")
    data = f"{world.disk}/data"
    world.do(f"dd if=/dev/zero of={data} bs=1M count={_SIZE} oflag=direct status=none")
    world.do(_inside(f"cat {data} > /dev/null"))
    cached, used = int(world.do(f"fincore -n -b -o res {data}").text) >> 20, 0
    why = "上限に届かなければ、捨てずにすべてをキャッシュに残す"
    holds, seen = _dropped(cached, used), f"キャッシュ{cached} MiB"
    world.control("clean-file-pages-are-dropped", holds, why=why, seen=seen)
    here = _prompt(world)
    here(f"m = allocate({_SIZE})")
    out = _pswpout(world)
    here("write(m)")
    out, after = _pswpout(world) - out, _memory(world, here)
    why = "上限に届かなければ、スワップに出ない"
    seen, holds = f"VmSwap {after['VmSwap']} MiB", _swapped_out(after)
    world.control("anonymous-pages-go-to-swap", holds, why=why, seen=seen)
    why = "スワップに出なければ、pswpoutも増えない"
    world.control("pswpout-counts-pages", _counted(out), why=why, seen=f"pswpout +{out}")
    answer = here("read(m)")
    why = "メモリにあるページなら、メジャーフォルトは起きない"
    world.control("touch-is-a-major-fault", _came_back(answer), why=why, seen=answer)
