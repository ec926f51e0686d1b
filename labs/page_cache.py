"""What the page cache keeps of reads and writes, and what goes past it."""

from __future__ import annotations

from labs.harness import Done, Lab, World, program

LAB = Lab(
    title="ページキャッシュに残るもの、残らないもの",
    chapter="os/page-cache",
    shows="ディスクの上のファイルを読み書きし、そのたびに何ページがキャッシュにあるかを数えます。",
    facts={
        "reading-fills-the-cache": "ファイルを読むと、読んだページがページキャッシュに残る",
        "second-read-needs-no-disk": "キャッシュにあるファイルを読むときは、ディスクを読まない",
        "readahead-brings-more": "先頭だけを読んでも、先読みで続きのページもキャッシュに入る",
        "writing-fills-the-cache": "書いたデータも、ページキャッシュに残る",
        "written-pages-are-dirty": "書いただけのページはダーティで、まだディスクと一致していない",
        "fsync-cleans-but-keeps": "fsyncは、ダーティなページを書き出し、キャッシュには残す",
        "direct-read-leaves-no-trace": "O_DIRECTで読んだデータは、ページキャッシュに残らない",
        "direct-read-spares-hot-pages": "O_DIRECTで読んでも、キャッシュにあったページは残る",
        "dontneed-drops-the-whole-file": "nocacheのcount=0は、クリーンなページをすべて捨てる",
        "tmpfs-cannot-be-dropped": "tmpfsのファイルは、ページキャッシュから捨てられない",
        "cache-stays-available": "ページキャッシュが増えても、MemAvailableは減らない",
    },
    needs=(
        program("dd", "coreutils"),
        program("fincore", "util-linux-extra"),
        program("python3"),
    ),
    seconds=4,
    alone=True,
    disk=True,
)

_MIB = 1 << 20
_SIZE = 64
_BIG = 256
_READ = "cat {} > /dev/null; grep ^read_bytes /proc/$$/io"
_DROP = "dd if={} iflag=nocache count=0 status=none"
_NOCACHE = """\
for bs in 128k 1M 4M; do
  dd if={0} iflag=nocache count=0 status=none
  dd if={0} of=/dev/null bs=$bs iflag=nocache status=none
  echo $bs $(fincore -n -o pages,res {0})
done"""
_MEMORY = "grep -E '^Mem(Free|Available)' /proc/meminfo"

_DIRTY = """\
import mmap, re, sys

file = open(sys.argv[1], "rb")
m = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
sum(m[:: mmap.PAGESIZE])  # すべてのページに触り、写像に取り付ける
smaps = open("/proc/self/smaps").read()
mine = smaps.split(sys.argv[1] + "\\n")[1].split("VmFlags")[0]
print("ダーティ", sum(map(int, re.findall(r"[de]_Dirty: +(\\d+)", mine))), "kB")
"""

_HEAD = """\
import os, sys

fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # 飛び飛びに読むと伝える
os.read(fd, 4096)
"""


def _pages(world: World, name: str) -> int:
    """Show how many pages of a file are cached, and return the number."""
    return int(world.do(f"fincore -n -o pages,res {name}").text.split()[0])


def _drop(world: World, name: str) -> None:
    world.do(_DROP.format(name))


def _set_up(world: World) -> str:
    world.section("file", "ディスクの上に64 MiBのファイルを作る")
    world.say("ディスクの上のディレクトリーは/tmp/diskです。書き出し終わるまで待ちます。")
    world.do(f"dd if=/dev/zero of={world.disk}/data bs=1M count={_SIZE} conv=fsync status=none")
    return f"{world.disk}/data"


def _all_pages(world: World) -> int:
    return _SIZE * _MIB // int(world.ask("getconf PAGESIZE").text)


def run(world: World) -> None:
    """Read, write and go past the cache; then see what can be thrown away."""
    data = _set_up(world)
    _reading(world, data)
    _readahead(world, data)
    _writing(world, f"{world.disk}/new")
    _direct(world, data)
    _dropping(world, data)
    _available(world, f"{world.disk}/big")


def _bytes_read(done: Done) -> int:
    return int(done.find(r"read_bytes: (\d+)")[1])


def _reading(world: World, data: str) -> None:
    world.section("reading", "読むとキャッシュに入る")
    world.say("キャッシュを捨ててから、2回読みます。fincoreは、キャッシュにあるページを数えます。")
    world.say("read_bytesは、このプロセスのために本当にディスクから読んだバイト数です。")
    _drop(world, data)
    before = _pages(world, data)
    first = _bytes_read(world.do(_READ.format(data)))
    after = _pages(world, data)
    second = _bytes_read(world.do(_READ.format(data)))
    holds = _filled(world, before, after)
    world.fact("reading-fills-the-cache", holds, seen=f"{before}ページから{after}ページへ")
    seen = f"1回目は{first}バイト、2回目は{second}バイト"
    holds = first >= _SIZE * _MIB and _from_memory(second)
    world.fact("second-read-needs-no-disk", holds, seen=seen)


def _filled(world: World, before: int, after: int) -> bool:
    return (before, after) == (0, _all_pages(world))


def _from_memory(read: int) -> bool:
    return read < _SIZE * _MIB // 10


def _readahead(world: World, data: str) -> None:
    world.section("readahead", "先頭の1ページだけを読む")
    world.say("続きも読まれると見込んで、カーネルは先のページまで読んでおきます（先読み）。")
    _drop(world, data)
    world.do(f"dd if={data} of=/dev/null bs=4k count=1 status=none")
    pages = _pages(world, data)
    world.fact("readahead-brings-more", pages > 1, seen=f"4 KiBを読んで{pages}ページ")


def _dirty(world: World, name: str) -> int:
    return int(world.do(f"python3 dirty.py {name}").find(r"(\d+) kB")[1]) // 1024


def _write(world: World, name: str) -> None:
    world.do(f"dd if=/dev/zero of={name} bs=1M count={_SIZE} status=none")


def _writing(world: World, new: str) -> None:
    world.section("writing", "書いたデータは、まずキャッシュに入る")
    world.say("ファイルを写像し、ディスクより新しいページ（ダーティ）を数えるプログラムです。")
    world.file("dirty.py", _DIRTY)
    _write(world, new)
    pages = _pages(world, new)
    world.fact("writing-fills-the-cache", pages == _all_pages(world), seen=f"{pages}ページ")
    dirty = _dirty(world, new)
    world.fact("written-pages-are-dirty", _mostly(dirty), seen=f"ダーティ{dirty} MiB")
    world.say("`sync ファイル名`は、そのファイルにfsyncを呼びます。")
    world.do(f"sync {new}")
    dirty, pages = _dirty(world, new), _pages(world, new)
    seen = f"ダーティ{dirty} MiB、キャッシュ{pages}ページ"
    world.fact("fsync-cleans-but-keeps", _clean_and_kept(world, dirty, pages), seen=seen)


def _mostly(dirty: int) -> bool:
    return dirty > _SIZE // 2


def _clean_and_kept(world: World, dirty: int, pages: int) -> bool:
    return (dirty, pages) == (0, _all_pages(world))


def _direct(world: World, data: str) -> None:
    world.section("direct", "ddでキャッシュを迂回する")
    world.say("ddも、何も付けなければキャッシュを通ります。`iflag=direct`がO_DIRECTです。")
    _drop(world, data)
    world.do(f"dd if={data} of=/dev/null bs=1M iflag=direct status=none")
    pages = _pages(world, data)
    world.fact("direct-read-leaves-no-trace", pages == 0, seen=f"{pages}ページ")
    world.say("次は、よく使われるファイルに見立てて、先にキャッシュへ入れておきます。")
    world.do(f"cat {data} > /dev/null")
    world.do(f"dd if={data} of=/dev/null bs=1M iflag=direct status=none")
    pages = _pages(world, data)
    world.fact("direct-read-spares-hot-pages", _hot(world, pages), seen=f"{pages}ページ")
    world.say("読みながらの`iflag=nocache`は助言です。残る量は、bsやカーネルによって違います。")
    world.say("捨ててから読み、残ったページを数えることを、3つのbsで繰り返します。")
    world.do(_NOCACHE.format(data))


def _hot(world: World, pages: int) -> bool:
    return pages == _all_pages(world)


def _dropping(world: World, data: str) -> None:
    world.section("dropping", "捨てられるページと、捨てられないページ")
    world.say("`count=0`は、1バイトも読まずに、ファイル全体を捨てるよう頼みます。")
    world.say("ほかのプログラムのために残っていたページも、区別されません。")
    world.do(f"cat {data} > /dev/null")
    before, after = _ask_to_drop(world, data)
    holds = _dropped(before, after)
    world.fact("dontneed-drops-the-whole-file", holds, seen=f"{before}ページから{after}ページへ")
    world.say("tmpfsにはディスクがありません。ページキャッシュにあるものが、ファイルのすべてです。")
    world.do("dd if=/dev/zero of=/tmp/in-memory bs=1M count=16 status=none")
    before, after = _ask_to_drop(world, "/tmp/in-memory")
    holds = _stays(before, after)
    world.fact("tmpfs-cannot-be-dropped", holds, seen=f"{before}ページから{after}ページへ")


def _ask_to_drop(world: World, name: str) -> tuple[int, int]:
    """Ask for a file's pages to be dropped; return how many were and are cached."""
    before = _pages(world, name)
    _drop(world, name)
    return before, _pages(world, name)


def _dropped(before: int, after: int) -> bool:
    return before > 0 == after


def _stays(before: int, after: int) -> bool:
    """Tell whether the cache kept a file, but for the few pages that the kernel moves about."""
    return 0 < before * 0.9 <= after


def _memory(world: World) -> tuple[int, int]:
    """Show MemFree and MemAvailable and return them in MiB."""
    done = world.do(_MEMORY)
    free, available = (int(kb) // 1024 for kb in done.all(r"(\d+) kB"))
    return free, available


def _available(world: World, big: str) -> None:
    world.section("available", "キャッシュは使えるメモリに数えられる")
    world.say("256 MiBのファイルをO_DIRECTで書き、読む前と後のメモリの統計を比べます。")
    world.say("MemFreeは空いたまま、MemAvailableはキャッシュを捨てれば使える分も含みます。")
    world.do(f"dd if=/dev/zero of={big} bs=1M count={_BIG} oflag=direct status=none")
    free, available = _memory(world)
    world.do(f"cat {big} > /dev/null")
    pages, after = _pages(world, big), _memory(world)
    holds = pages > _all_pages(world) and after[1] - available > -_BIG // 2
    seen = f"MemFree {after[0] - free:+} MiB、MemAvailable {after[1] - available:+} MiB"
    world.fact("cache-stays-available", holds, seen=seen)


def control(world: World) -> None:
    """Take the causes away: O_DIRECT, an empty cache, random access, no fsync, dirty pages."""
    data = _set_up(world)
    _read_directly(world, data)
    _read_one_page(world, data)
    _write_and_sync(world, f"{world.disk}/new")
    _read_through_the_cache(world, data)
    _drop_dirty_pages(world, f"{world.disk}/dirty")
    _drop_from_disk(world, data)


def _read_directly(world: World, data: str) -> None:
    world.section("read-directly", "O_DIRECTで読み、もう一度読む")
    _drop(world, data)
    before = _pages(world, data)
    world.do(f"dd if={data} of=/dev/null bs=1M iflag=direct status=none")
    after = _pages(world, data)
    why = "O_DIRECTで読めば、キャッシュには入らない"
    seen = f"{before}ページから{after}ページへ"
    world.control("reading-fills-the-cache", _filled(world, before, after), why=why, seen=seen)
    second = _bytes_read(world.do(_READ.format(data)))
    why = "キャッシュになければ、2回目もディスクから読む"
    seen, holds = f"{second}バイト", _from_memory(second)
    world.control("second-read-needs-no-disk", holds, why=why, seen=seen)


def _read_one_page(world: World, data: str) -> None:
    world.section("random", "飛び飛びに読むと伝えてから読む")
    world.file("head.py", _HEAD)
    _drop(world, data)
    world.do(f"python3 head.py {data}")
    pages = _pages(world, data)
    why = "POSIX_FADV_RANDOMを伝えると、先読みしない"
    world.control("readahead-brings-more", pages > 1, why=why, seen=f"{pages}ページ")


def _write_and_sync(world: World, new: str) -> None:
    world.section("sync", "書き終えるまで待つddと、待たないdd")
    world.file("dirty.py", _DIRTY, unseen=True)
    world.do(f"dd if=/dev/zero of={new} bs=1M count={_SIZE} oflag=direct status=none")
    pages = _pages(world, new)
    why = "O_DIRECTで書いたデータは、キャッシュに残らない"
    holds = pages == _all_pages(world)
    world.control("writing-fills-the-cache", holds, why=why, seen=f"{pages}ページ")
    world.do(f"dd if=/dev/zero of={new}-2 bs=1M count={_SIZE} conv=fsync status=none")
    dirty = _dirty(world, f"{new}-2")
    why = "conv=fsyncで書き出し終えれば、ダーティなページはない"
    world.control("written-pages-are-dirty", _mostly(dirty), why=why, seen=f"{dirty} MiB")
    _write(world, f"{new}-3")
    dirty, pages = _dirty(world, f"{new}-3"), _pages(world, f"{new}-3")
    why = "fsyncを呼ばなければ、ダーティなままである"
    holds, seen = _clean_and_kept(world, dirty, pages), f"ダーティ{dirty} MiB"
    world.control("fsync-cleans-but-keeps", holds, why=why, seen=seen)


def _read_through_the_cache(world: World, data: str) -> None:
    world.section("through-the-cache", "ddに何も付けない")
    _drop(world, data)
    world.do(f"dd if={data} of=/dev/null bs=1M status=none")
    pages = _pages(world, data)
    why = "ddという道具ではなく、O_DIRECTが迂回させている"
    world.control("direct-read-leaves-no-trace", pages == 0, why=why, seen=f"{pages}ページ")
    _drop(world, data)
    pages = _pages(world, data)
    why = "O_DIRECTの代わりにnocacheのcount=0を使うと、残っていたページも消える"
    holds = _hot(world, pages)
    world.control("direct-read-spares-hot-pages", holds, why=why, seen=f"{pages}ページ")


def _drop_dirty_pages(world: World, dirty: str) -> None:
    world.section("dirty", "書いた直後に捨てるよう頼む")
    _write(world, dirty)
    before, after = _ask_to_drop(world, dirty)
    why = "書き出されていないページは、捨てられずに残る"
    seen, holds = f"{before}ページから{after}ページへ", _dropped(before, after)
    world.control("dontneed-drops-the-whole-file", holds, why=why, seen=seen)


def _drop_from_disk(world: World, data: str) -> None:
    world.section("on-disk", "tmpfsの代わりにディスクに置く")
    world.do(f"cat {data} > /dev/null")
    before, after = _ask_to_drop(world, data)
    why = "ディスクに同じ内容があれば、捨てられる"
    seen = f"{before}ページから{after}ページへ"
    world.control("tmpfs-cannot-be-dropped", _stays(before, after), why=why, seen=seen)
