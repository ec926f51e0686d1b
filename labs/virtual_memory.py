"""Who ties a process's addresses to physical memory, and when."""

from __future__ import annotations

from labs.harness import Done, Lab, World, only, program

LAB = Lab(
    title="仮想メモリとページフォルト",
    chapter="os/virtual-memory",
    shows="確保、書き込み、共有のたびに、広さと物理メモリとページフォルトがどう変わるかを数えます。",
    facts={
        "mapping-grows-vmsize-only": "確保しただけでは、VmSizeだけが増え、VmRSSは増えない",
        "reading-takes-no-memory": "書かずに読むだけでは、VmRSSは増えない",
        "writing-grows-rss": "書いた分だけ、VmRSSが増える",
        "a-written-page-is-a-minor-fault": "初めて書いたページの数だけ、マイナーフォルトが起きる",
        "uncached-file-is-a-major-fault": "キャッシュにないファイルに触ると、メジャーになる",
        "cached-file-is-a-minor-fault": "キャッシュにあるファイルなら、マイナーで済む",
        "a-fault-brings-neighbours": "ファイルのフォルトは、1回で周りのページも取り付ける",
        "shared-pages-halve-pss": "2つのプロセスが共有するページは、PSSでは半分ずつ数える",
        "one-frame-for-two": "共有しているページは、2つのプロセスで同じページフレームである",
        "private-write-gets-a-frame": "私的な写像に書くと、別のページフレームになる",
        "maps-go-up-to-the-stack": "mapsには、コード、ヒープ、libc、スタックの順に並ぶ",
        "aslr-moves-the-regions": "領域の位置は、実行するたびに変わる",
        "unmapped-access-is-sigsegv": "割り当てのない場所に触ると、SIGSEGVで終わる（139）",
        "beyond-the-file-is-sigbus": "写像したファイルの終わりより先なら、SIGBUSで終わる（135）",
    },
    needs=(program("python3"), program("setarch", "util-linux")),
    seconds=1,
    alone=True,
    disk=True,
    names=(r"フレーム (?P<frame>[1-9]\d*)",),
)

_FAULT = """\
import mmap, resource, sys

GIB, MIB = 1 << 30, 1 << 20
MAP_NORESERVE, MAP_POPULATE = 0x4000, 0x8000
ways = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
populate = "populate" in sys.argv


def status(when):
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    lines = [l.split() for l in open("/proc/self/status") if l.startswith("Vm")]
    vm = {words[0]: int(words[1]) // 1024 for words in lines}
    print(f"{when} VmSize {vm['VmSize:']} MiB, VmRSS {vm['VmRSS:']} MiB, フォルト {faults}")


status("確保する前:")
if populate:
    m = mmap.mmap(-1, 100 * MIB, flags=ways | MAP_POPULATE)
else:
    m = mmap.mmap(-1, 10 * GIB, flags=ways)
    m.madvise(mmap.MADV_NOHUGEPAGE)
status("確保した後:")
sum(m[at] for at in range(0, 100 * MIB, mmap.PAGESIZE))
status("読んだ後:")
m.seek(0) if populate else m.seek(GIB)  # まだ読んでいない場所に書く
start = m.tell()
for at in range(start, start + 100 * MIB, mmap.PAGESIZE):
    m[at] = 1
status("書いた後:")
"""

_MAJOR = """\
import mmap, os, resource

SIZE = 8 << 20  # 8 MiB
fd = os.open("data", os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.unlink("data")  # 開いている間だけ使える
os.write(fd, b"x" * SIZE)
os.fsync(fd)


def touch(when):
    before = resource.getrusage(resource.RUSAGE_SELF)
    m = mmap.mmap(fd, SIZE, prot=mmap.PROT_READ)
    sum(m[at] for at in range(0, SIZE, mmap.PAGESIZE))
    after = resource.getrusage(resource.RUSAGE_SELF)
    major, minor = after.ru_majflt - before.ru_majflt, after.ru_minflt - before.ru_minflt
    print(f"{when} メジャー {major} マイナー {minor}（{SIZE // mmap.PAGESIZE}ページ）")
    m.close()


os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # キャッシュを捨てるよう頼む
touch("キャッシュにないとき:")
touch("キャッシュにあるとき:")
"""

_SHARE = """\
import mmap, os

size = 100 << 20
m = mmap.mmap(-1, size)
m.write(b"x" * size)  # 子と共有する100 MiB


def show(who):
    lines = open("/proc/self/smaps_rollup").read().splitlines()[1:]
    kb = {line.split()[0]: line.split()[1] for line in lines}
    print(who, "Rss", kb["Rss:"], "kB, Pss", kb["Pss:"], "kB", flush=True)


show("子を作る前:")
child_read, child_done = os.pipe()
parent_read, parent_done = os.pipe()
if os.fork() == 0:
    m.seek(0)
    m.read(size)
    show("子:")
    os.write(child_done, b".")
    os.read(parent_read, 1)  # 親が測り終わるまで待つ
    os._exit(0)
os.read(child_read, 1)  # 子が測り終わるまで待つ
show("親:")
os.write(parent_done, b".")
os.wait()
"""

_FRAME = """\
import ctypes, mmap, os, sys

kind = mmap.MAP_PRIVATE if "private" in sys.argv else mmap.MAP_SHARED
m = mmap.mmap(-1, mmap.PAGESIZE, flags=kind | mmap.MAP_ANONYMOUS)
m[0] = 1
address = ctypes.addressof(ctypes.c_char.from_buffer(m))


def show(who):
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        pagemap.seek(address // mmap.PAGESIZE * 8)
        entry = int.from_bytes(pagemap.read(8), "little")
    frame, alone = entry & ((1 << 55) - 1), entry >> 56 & 1
    print(f"{who} 値 {m[0]} フレーム {frame} 専用 {alone}", flush=True)


child_read, child_done = os.pipe()
parent_read, parent_done = os.pipe()
if os.fork() == 0:
    if "write" in sys.argv:
        m[0] = 2
    show("子:")
    os.write(child_done, b".")
    os.read(parent_read, 1)  # 親が調べ終わるまで待つ
    os._exit(0)
os.read(child_read, 1)
show("親:")
os.write(parent_done, b".")
os.wait()
"""

_BUS = """\
import mmap, os, sys

with open("shrunk", "wb+") as file:
    file.write(b"x" * mmap.PAGESIZE * 2)
    file.flush()
    m = mmap.mmap(file.fileno(), 0)
    if "keep" not in sys.argv:
        os.truncate("shrunk", mmap.PAGESIZE)
    print("2ページ目:", m[mmap.PAGESIZE])
"""


def run(world: World) -> None:
    """Count what mapping, reading, writing, files and sharing cost; then break the rules."""
    _demand_paging(world)
    _file_faults(world)
    _shared_pages(world)
    _frames(world)
    _layout(world)
    _forbidden(world)


def _status(done: Done) -> list[tuple[int, int, int]]:
    """Return VmSize, VmRSS (MiB) and minor faults: before, mapped, read, written."""
    lines = [line.replace(",", "").split() for line in done.lines]
    return [(int(w[2]), int(w[5]), int(w[8])) for w in lines]


def _pages(world: World) -> int:
    """Return how many pages make 100 MiB."""
    return (100 << 20) // int(world.ask("getconf PAGESIZE").text)


def _maps_only(status: list[tuple[int, int, int]]) -> bool:
    before, mapped, *_ = status
    return mapped[0] - before[0] >= 100 and mapped[1] - before[1] < 8


def _faults_are_pages(status: list[tuple[int, int, int]], pages: int) -> bool:
    return pages <= status[3][2] - status[2][2] < pages * 1.05


def _demand_paging(world: World) -> None:
    world.section("demand-paging", "書くまで割り当てられない")
    world.say("10 GiBを確保し、先頭の100 MiBを読み、別の100 MiBに書きます。")
    world.file("fault.py", _FAULT)
    status = _status(world.do("python3 fault.py"))
    before, mapped, read, written = status
    pages, faults = _pages(world), written[2] - read[2]
    seen = f"VmSizeは+{mapped[0] - before[0]} MiB、VmRSSは+{mapped[1] - before[1]} MiB"
    world.fact("mapping-grows-vmsize-only", _maps_only(status), seen=seen)
    grown = read[1] - mapped[1]
    world.fact("reading-takes-no-memory", grown < 8, seen=f"100 MiBを読み、VmRSSは+{grown} MiB")
    grown = written[1] - read[1]
    world.fact("writing-grows-rss", 98 <= grown < 110, seen=f"100 MiBに書き、VmRSSは+{grown} MiB")
    holds = _faults_are_pages(status, pages)
    seen = f"{pages}ページに書き、フォルトは+{faults}"
    world.fact("a-written-page-is-a-minor-fault", holds, seen=seen)


def _touches(done: Done) -> list[tuple[int, ...]]:
    """Return major faults, minor faults and pages: uncached, then cached."""
    words = (line.replace("（", " ").replace("ペ", " ").split() for line in done.lines)
    return [tuple(int(word) for word in line if word.isdigit()) for line in words]


def _file_faults(world: World) -> None:
    world.section("major-faults", "メジャーフォルトを起こす")
    world.say("ディスクの上のファイルを写像し、キャッシュにないときとあるときを比べます。")
    world.file("major.py", _MAJOR)
    cold, warm = _touches(world.do(f"cd {world.disk} && python3 /tmp/lab/major.py"))
    seen = f"メジャー{cold[0]}回"
    world.fact("uncached-file-is-a-major-fault", cold[0] > 0, seen=seen)
    seen = f"メジャー{warm[0]}回、マイナー{warm[1]}回"
    world.fact("cached-file-is-a-minor-fault", warm[0] == 0 < warm[1], seen=seen)
    seen = f"{warm[2]}ページに触って、フォルトは{warm[1]}回"
    world.fact("a-fault-brings-neighbours", warm[1] * 2 < warm[2], seen=seen)


def _shared_pages(world: World) -> None:
    world.section("shared-pages", "共有されたページを数える")
    world.say("100 MiBを共有する子を作り、RSSとPSSを比べます。")
    world.file("share.py", _SHARE)
    figures = world.do("python3 share.py").all(r"Pss (\d+) kB")
    before, child, parent = (int(figure) // 1024 for figure in figures)
    seen = f"作る前{before} MiB、子{child} MiB、親{parent} MiB"
    world.fact("shared-pages-halve-pss", _halved(before, child, parent), seen=seen)


def _halved(before: int, *after: int) -> bool:
    return all(0.4 < pss / before < 0.6 for pss in after)


def _frame_lines(done: Done) -> list[tuple[int, int, int]]:
    """Return the value, the frame's number and whether it is the process's own."""
    lines = (line.split() for line in done.lines)
    return [(int(words[2]), int(words[4]), int(words[6])) for words in lines]


def _one_frame(done: Done) -> bool:
    """Compare the numbers, or where they are hidden what the kernel says and what is seen."""
    child, parent = _frame_lines(done)
    return child == parent and not child[2]


def _seen_frames(done: Done) -> str:
    child, parent = _frame_lines(done)
    if child[1] or parent[1]:
        return f"子は{child[1]}、親は{parent[1]}"
    return "番号は権限がなく0。専用の印は" + ("ある" if child[2] and parent[2] else "ない")


def _frames(world: World) -> None:
    world.section("frames", "同じページフレームかを調べる")
    world.say("/proc/PID/pagemapで、ページの対応先を親子で比べます。番号はrootにだけ見えます。")
    world.say("「専用」は、そのプロセスだけがページを使っているという印です。")
    world.file("frame.py", _FRAME)
    shared = world.do("python3 frame.py write")
    world.fact("one-frame-for-two", _one_frame(shared), seen=_seen_frames(shared))
    private = world.do("python3 frame.py private write")
    (value, *_), (old, *_) = _frame_lines(private)
    holds = not _one_frame(private) and (value, old) == (2, 1)
    world.fact("private-write-gets-a-frame", holds, seen=_seen_frames(private))


def _starts(maps: Done) -> list[int]:
    """Return where the code, the heap, libc's code and the stack begin."""
    patterns = (r"r-xp .*/cat$", r"rw-p .*\[heap\]$", r"r-xp .*/libc\S*$", r"rw-p .*\[stack\]$")
    return [int(maps.find(rf"^([0-9a-f]+)-\S+ {pattern}")[1], 16) for pattern in patterns]


_REGIONS = only(r"/cat$|\[heap\]|r-xp .*/libc|\[stack\]")


def _layout(world: World) -> None:
    world.section("layout", "領域の並びと、位置のゆらぎを見る")
    world.say("catに自分のmapsを表示させます。2回実行して、位置を比べます。")
    first = _starts(world.do("cat /proc/self/maps", show=_REGIONS))
    second = _starts(world.do("cat /proc/self/maps", show=only(r"\[heap\]|\[stack\]")))
    seen = "コード < ヒープ < libc < スタック"
    world.fact("maps-go-up-to-the-stack", first == sorted(first), seen=seen)
    world.fact("aslr-moves-the-regions", _moved(first, second), seen="2回とも違う位置")


def _moved(first: list[int], second: list[int]) -> bool:
    return all(one != other for one, other in zip(first[1:], second[1:], strict=True))


def _forbidden(world: World) -> None:
    world.section("forbidden", "触れない場所に触る")
    world.say(
        "0番地には何も割り当てられていません。終了コードは、128にシグナルの番号を足した値です。"
    )
    done = world.do("python3 -c 'import ctypes; ctypes.string_at(0)'", code=None)
    world.fact("unmapped-access-is-sigsegv", done.code == 139, seen=f"終了コード{done.code}")
    world.say("写像した後でファイルを1ページに縮め、2ページ目に触ります。")
    world.file("bus.py", _BUS)
    done = world.do("python3 bus.py", code=None)
    world.fact("beyond-the-file-is-sigbus", done.code == 135, seen=f"終了コード{done.code}")


def control(world: World) -> None:
    """Take the causes away: memory taken at once, no disk, no child, ASLR off, a whole file."""
    _populated(world)
    _file_without_a_disk(world)
    _not_shared(world)
    _fixed_addresses(world)
    _whole_file(world)


def _populated(world: World) -> None:
    world.section("populated", "確保と同時に割り当てさせる")
    world.file("fault.py", _FAULT, unseen=True)
    status = _status(world.do("python3 fault.py populate"))
    grown, faults = status[1][1] - status[0][1], status[3][2] - status[2][2]
    why = "MAP_POPULATEを付けると、書く前にVmRSSが増える"
    holds = _maps_only(status)
    world.control("mapping-grows-vmsize-only", holds, why=why, seen=f"VmRSSは+{grown} MiB")
    why = "割り当て済みのページに書いても、フォルトは起きない"
    holds = _faults_are_pages(status, _pages(world))
    world.control("a-written-page-is-a-minor-fault", holds, why=why, seen=f"フォルトは+{faults}")


def _file_without_a_disk(world: World) -> None:
    world.section("no-disk", "同じことをtmpfsの上でする")
    world.file("major.py", _MAJOR, unseen=True)
    cold, _warm = _touches(world.do("python3 major.py"))
    why = "ディスクを読まないファイルでは、メジャーフォルトは起きない"
    seen = f"メジャー{cold[0]}回"
    world.control("uncached-file-is-a-major-fault", cold[0] > 0, why=why, seen=seen)


def _not_shared(world: World) -> None:
    world.section("not-shared", "私的な写像に子が書く")
    world.file("frame.py", _FRAME, unseen=True)
    private = world.do("python3 frame.py private write")
    why = "私的な写像では、書いた後のページフレームは別になる"
    seen = _seen_frames(private)
    world.control("one-frame-for-two", _one_frame(private), why=why, seen=seen)
    untouched = world.do("python3 frame.py private")
    why = "私的な写像でも、書かなければ同じページフレームのままである"
    seen, holds = _seen_frames(untouched), not _one_frame(untouched)
    world.control("private-write-gets-a-frame", holds, why=why, seen=seen)


def _fixed_addresses(world: World) -> None:
    world.section("fixed-addresses", "ASLRを切る")
    command = "setarch -R cat /proc/self/maps"
    first, second = (_starts(world.do(command, show=_REGIONS)) for _ in range(2))
    why = "ASLRを切れば、領域の位置は毎回同じである"
    holds = _moved(first, second)
    world.control("aslr-moves-the-regions", holds, why=why, seen="2回とも同じ位置")


def _whole_file(world: World) -> None:
    world.section("whole-file", "ファイルを縮めない")
    world.file("bus.py", _BUS, unseen=True)
    done = world.do("python3 bus.py keep", code=None)
    why = "ファイルが縮んでいなければ、2ページ目も読める"
    holds, seen = done.code == 135, f"終了コード{done.code}"
    world.control("beyond-the-file-is-sigbus", holds, why=why, seen=seen)
