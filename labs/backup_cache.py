"""What a backup does to the page cache of a service beside it, and how to keep it from harm."""

from __future__ import annotations

import re
from pathlib import Path

from labs.harness import Lab, World, cgroup, feature, program

_NEEDED = 1 << 20  # kB


def _unfit() -> str:
    """Return why this machine is not fit, or nothing."""
    if not cgroup.parent("memory"):
        return "メモリを制限できるcgroup（memoryコントローラー）のあるマシンで動かしてください"
    found = re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())
    if not found or int(found[1]) < _NEEDED:
        return "使えるメモリ（MemAvailable）が1 GiB以上あるときに動かしてください"
    return ""


_FILES = {"limit": ("memory.max", "memory.limit_in_bytes")}

LAB = Lab(
    title="バックアップがキャッシュに残すもの",
    chapter="os/backup-and-cache",
    shows="上限128 MiBのcgroupで、サービスのそばでバックアップを取り、キャッシュを数えます。",
    facts={
        "backup-fills-the-cache": "ふつうに読むバックアップは、読んだファイルをキャッシュに残す",
        "backup-evicts-hot-pages": "そのとき、サービスが使うページがキャッシュから追い出される",
        "next-read-goes-to-disk": "追い出された後、サービスの次の読み込みはディスクを読む",
        "direct-spares-hot-pages": "O_DIRECTで読めば、サービスのページを追い出さない",
        "dropping-spares-hot-pages": "捨てながら読めば、サービスのページを追い出さない",
        "dropping-takes-shared-pages": "捨てながら読むと、サービスも使うページまで消える",
        "limited-backup-evicts-itself": "別の上限の中では、バックアップは自分のページを追い出す",
        "cp-does-not-wait": "cpは、fsyncを呼ばずに終わる",
        "synced-copy-can-be-dropped": "syncで書き出した写しは、キャッシュから捨てられる",
        "copy-during-writes-is-torn": "書き込みの合間に順に写すと、どの時点とも違う組になる",
    },
    needs=(
        program("dd", "coreutils"),
        program("fincore", "util-linux-extra"),
        program("python3"),
        feature("strace"),
    ),
    seconds=9,
    limit=120,
    alone=True,
    root=True,
    disk=True,
    machine_wide=True,
    unfit=_unfit,
)

_HOT = 64
_BIG = 256
_LIMIT = 128
_BACKUP = 16

_READ = "cat {} > /dev/null; grep ^read_bytes /proc/$$/io"
_DROP = "dd if={} iflag=nocache count=0 status=none"
_PLAIN = "dd if={} bs=1M status=none | wc -c"
_DIRECT = "dd if={} bs=1M iflag=direct status=none | wc -c"
_DROPPING = "python3 backup.py {} | wc -c"

_PROGRAM = """\
import os, sys

fd = os.open(sys.argv[1], os.O_RDONLY)
position = 0
while block := os.read(fd, 1 << 20):
    sys.stdout.buffer.write(block)
    position += len(block)
    os.posix_fadvise(fd, 0, position, os.POSIX_FADV_DONTNEED)  # 先頭からここまで
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # 最後に全体
"""

_SHOP = """\
import fcntl


def sell(number):
    \"\"\"注文と在庫を書く。合わせていつも10になる。\"\"\"
    with open("lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open("orders", "w") as orders, open("stock", "w") as stock:
            print(number, file=orders)
            print(10 - number, file=stock)
"""


def run(world: World) -> None:
    """Back up beside a service: through the cache, past it, dropping, and within a limit."""
    hot, big = _set_up(world)
    _through_the_cache(world, hot, big)
    _past_the_cache(world, hot, big)
    _dropping(world, hot, big)
    _read_often(world, hot, big)
    _limited(world, hot, big)
    _writing(world, hot)
    _torn(world)


# The stage


def _set_up(world: World) -> tuple[str, str]:
    world.section("stage", "小さなサーバーに見立てたcgroupと、2つのファイルを用意する")
    world.say("serverの上限をserviceとbackupが分け合います。どれもcgroupです。")
    world.say("中のlimitとprocsは、作ったcgroupの設定ファイルへの近道です。")
    _groups(world)
    world.do(f"echo {_LIMIT}M > server/limit")
    world.say("hotはサービスが読むファイル、bigはバックアップするファイルです。")
    world.do(f"dd if=/dev/zero of={world.disk}/hot bs=1M count={_HOT} oflag=direct status=none")
    world.do(f"dd if=/dev/zero of={world.disk}/big bs=1M count={_BIG} oflag=direct status=none")
    world.file("backup.py", _PROGRAM, unseen=True)
    return f"{world.disk}/hot", f"{world.disk}/big"


def _groups(world: World) -> None:
    """Make a cgroup with two inside."""
    server = cgroup.new("memory")
    for name, path in {
        "server": server,
        "service": server / "service",
        "backup": server / "backup",
    }.items():
        cgroup.make(world, "memory", path, name, _FILES)


def _cached(world: World, *names: str) -> list[int]:
    """Show how much of each file is cached, and return the numbers in MiB."""
    done = world.do(f"fincore -o res,size,file {' '.join(names)}")
    units = {"B": 0, "K": 0, "M": 1, "G": 1024}
    lines = re.findall(r"^ *([\d.]+)([BKMG]) +\S+ (\S+)$", done.text, re.M)
    sizes = {name: int(float(size) * units[unit]) for size, unit, name in lines}
    return [sizes[name] for name in names]


def _serve(world: World, hot: str) -> int:
    """Let the service read its file, and return how many bytes came from the disk."""
    done = world.do(f"echo $$ > service/procs; {_READ.format(hot)}")
    return int(done.find(r"read_bytes: (\d+)")[1])


def _warm(world: World, hot: str, big: str) -> None:
    """Start anew: nothing of big in the cache, and all of hot, read once."""
    for name in hot, big:
        world.ask(_DROP.format(name))
    _serve(world, hot)


def _back_up(world: World, command: str, name: str) -> None:
    world.do(f"echo $$ > backup/procs; {command.format(name)}")


# Reading


def _through_the_cache(world: World, hot: str, big: str) -> None:
    world.section("through-the-cache", "ふつうに読むバックアップ")
    world.say("サービスがhotを読みます。read_bytesは、本当にディスクから読んだバイト数です。")
    _warm(world, hot, big)
    _cached(world, hot)
    world.say("バックアップがbigを読み、先へ送ります。ここではwcが受け取り、バイト数を数えます。")
    _back_up(world, _PLAIN, big)
    kept, left = _cached(world, hot, big)
    world.fact("backup-fills-the-cache", _filled(left), seen=f"bigが{left} MiB")
    world.fact("backup-evicts-hot-pages", _evicted(kept), seen=f"hotは{_HOT} → {kept} MiB")
    world.say("サービスが、もう一度hotを読みます。")
    read = _serve(world, hot)
    world.fact("next-read-goes-to-disk", _from_disk(read), seen=f"{read}バイト")


def _filled(left: int) -> bool:
    return left >= _LIMIT // 4


def _evicted(kept: int) -> bool:
    return kept <= _HOT * 3 // 4


def _from_disk(read: int) -> bool:
    return read >= _HOT // 4 << 20


def _kept(kept: int) -> bool:
    return kept >= _HOT * 9 // 10


def _spared(kept: int, left: int) -> bool:
    """Whether the service lost nothing and the backup left nothing."""
    return _kept(kept) and left == 0


def _past_the_cache(world: World, hot: str, big: str) -> None:
    world.section("past-the-cache", "O_DIRECTで読むバックアップ")
    _warm(world, hot, big)
    _back_up(world, _DIRECT, big)
    kept, left = _cached(world, hot, big)
    seen = f"hot {kept} MiB、big {left} MiB"
    world.fact("direct-spares-hot-pages", _spared(kept, left), seen=seen)


def _dropping(world: World, hot: str, big: str) -> None:
    world.section("dropping", "読んだ所までを捨てながら読むバックアップ")
    world.say("1 MiB読むたびに、先頭から読んだ所までを、POSIX_FADV_DONTNEEDで捨てます。")
    world.file("backup.py", _PROGRAM)
    _warm(world, hot, big)
    _back_up(world, _DROPPING, big)
    kept, left = _cached(world, hot, big)
    seen = f"hot {kept} MiB、big {left} MiB"
    world.fact("dropping-spares-hot-pages", _spared(kept, left), seen=seen)
    world.section("shared", "サービスが使っているファイルをバックアップする")
    world.say("同じhotを、O_DIRECTで読んだ後と、捨てながら読んだ後で比べます。")
    _back_up(world, _DIRECT, hot)
    _cached(world, hot)
    _back_up(world, _DROPPING, hot)
    [kept] = _cached(world, hot)
    world.fact("dropping-takes-shared-pages", _evicted(kept), seen=f"hotは{_HOT} → {kept} MiB")


def _read_often(world: World, hot: str, big: str) -> None:
    world.section("read-often", "サービスが3回読んだ後で、ふつうに読むバックアップ")
    world.say("何度も読まれたページは、守られることがあります。残る量は条件によって違います。")
    _warm(world, hot, big)
    _serve(world, hot)
    _serve(world, hot)
    _back_up(world, _PLAIN, big)
    _cached(world, hot, big)


def _limited(world: World, hot: str, big: str) -> None:
    world.section("limited", "バックアップだけに、小さな上限を付ける")
    world.say("読み方は、初めと同じふつうのddです。")
    world.do(f"echo {_BACKUP}M > backup/limit")
    _warm(world, hot, big)
    _back_up(world, _PLAIN, big)
    kept, left = _cached(world, hot, big)
    seen = f"hot {kept} MiB、big {left} MiB"
    world.fact("limited-backup-evicts-itself", _evicted_itself(kept, left), seen=seen)


def _evicted_itself(kept: int, left: int) -> bool:
    return _kept(kept) and 0 < left <= _BACKUP


# Writing


def _syncs(world: World, command: str) -> int:
    """Run a command under strace, and return how often it asked for durability."""
    world.do(f"strace -f -o trace -e trace=fsync,fdatasync,sync,syncfs {command}")
    return int(world.do("grep -c sync trace", code=None).text)


def _writing(world: World, hot: str) -> None:
    world.section("writing", "写しを書く側のキャッシュ")
    world.say("cpが永続化を求めた回数を、straceで数えます。")
    copy = f"{world.disk}/copy"
    calls = _syncs(world, f"cp --reflink=never {hot} {copy}")
    world.fact("cp-does-not-wait", calls == 0, seen=f"{calls}回")
    world.say("syncで写しにfsyncを呼び、成功したら、キャッシュから捨てます。")
    world.do(f"sync {copy}")
    [before] = _cached(world, copy)
    world.do(_DROP.format(copy))
    [after] = _cached(world, copy)
    holds, seen = _dropped(before, after), f"{before} → {after} MiB"
    world.fact("synced-copy-can-be-dropped", holds, seen=seen)


def _dropped(before: int, after: int) -> bool:
    return before > 0 == after


def _sum(world: World) -> int:
    done = world.do("head backup-orders backup-stock")
    return sum(map(int, done.all(r"^(\d+)$")))


def _torn(world: World) -> None:
    world.section("torn", "書き込みの合間に、2つのファイルを順に写す")
    world.say("サービスは、1件売れるたびに、注文と在庫の両方を書き換えます。足すといつも10です。")
    world.file("shop.py", _SHOP)
    world.ask("touch lock")
    service = world.python()
    service("from shop import sell")
    service("sell(3)")
    world.do("cp orders backup-orders")
    service("sell(4)")
    world.do("cp stock backup-stock")
    total = _sum(world)
    world.fact("copy-during-writes-is-torn", _differs(total), seen=f"足すと{total}")
    service.close()


def _differs(total: int) -> bool:
    return total != 10


def control(world: World) -> None:
    """Take the causes away: O_DIRECT, no backup, no advice, a mapping, no limit, a lock."""
    hot, big = _set_up(world)
    _without_the_cache(world, hot, big)
    _without_backup(world, hot)
    _without_direct(world, hot, big)
    _without_advice(world, hot, big)
    _mapped(world, hot)
    _unlimited(world, hot, big)
    _synced(world, hot)
    _locked(world)


def _without_the_cache(world: World, hot: str, big: str) -> None:
    world.section("without-the-cache", "キャッシュを通さずに読む")
    _warm(world, hot, big)
    _back_up(world, _DIRECT, big)
    kept, left = _cached(world, hot, big)
    why = "キャッシュを通さなければ、残らない"
    world.control("backup-fills-the-cache", _filled(left), why=why, seen=f"{left} MiB")
    why = "キャッシュに入れなければ、追い出さない"
    world.control("backup-evicts-hot-pages", _evicted(kept), why=why, seen=f"hotは{kept} MiB")


def _without_backup(world: World, hot: str) -> None:
    world.section("without-backup", "バックアップを取らずに、もう一度読む")
    read = _serve(world, hot)
    why = "追い出されていなければ、ディスクを読まない"
    world.control("next-read-goes-to-disk", _from_disk(read), why=why, seen=f"{read}バイト")


def _without_direct(world: World, hot: str, big: str) -> None:
    world.section("without-direct", "同じddから、iflag=directを外す")
    _warm(world, hot, big)
    _back_up(world, _PLAIN, big)
    kept, left = _cached(world, hot, big)
    why = "ddではなく、O_DIRECTが守っている"
    seen = f"hot {kept} MiB、big {left} MiB"
    world.control("direct-spares-hot-pages", _spared(kept, left), why=why, seen=seen)


def _without_advice(world: World, hot: str, big: str) -> None:
    world.section("without-advice", "同じプログラムから、助言を外す")
    world.do("sed -i /fadvise/d backup.py")
    _warm(world, hot, big)
    _back_up(world, _DROPPING, big)
    kept, left = _cached(world, hot, big)
    why = "捨てるよう頼まなければ、サービスのページを追い出す"
    seen = f"hot {kept} MiB、big {left} MiB"
    world.control("dropping-spares-hot-pages", _spared(kept, left), why=why, seen=seen)
    world.file("backup.py", _PROGRAM, unseen=True)


def _mapped(world: World, hot: str) -> None:
    world.section("mapped", "サービスが、ファイルをmmapで使っている")
    service = world.python()
    world.name("pid", service.pid)
    world.do(f"echo {service.pid} > service/procs")
    service("import mmap")
    service(f"file = open({hot!r}, 'rb')")
    service("m = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)")
    service("sum(m[:: mmap.PAGESIZE])  # すべてのページに触る")
    _back_up(world, _DROPPING, hot)
    [kept] = _cached(world, hot)
    why = "写像されているページは、捨てられない"
    world.control("dropping-takes-shared-pages", _evicted(kept), why=why, seen=f"{kept} MiB")
    service.close()


def _unlimited(world: World, hot: str, big: str) -> None:
    world.section("unlimited", "バックアップだけの上限を付けない")
    _warm(world, hot, big)
    _back_up(world, _PLAIN, big)
    kept, left = _cached(world, hot, big)
    why = "全体の上限だけでは、サービスのページを追い出す"
    seen = f"hot {kept} MiB、big {left} MiB"
    world.control("limited-backup-evicts-itself", _evicted_itself(kept, left), why=why, seen=seen)


def _synced(world: World, hot: str) -> None:
    world.section("synced", "fsyncまで済ませるddで写す")
    command = f"dd if={hot} of={world.disk}/copy bs=1M conv=fsync status=none"
    calls = _syncs(world, command)
    why = "conv=fsyncを付けたddは、終わる前にfsyncを呼ぶ"
    world.control("cp-does-not-wait", calls == 0, why=why, seen=f"{calls}回")
    [before] = _cached(world, f"{world.disk}/copy")
    world.do(f"sync {world.disk}/copy")
    [after] = _cached(world, f"{world.disk}/copy")
    why = "syncだけでは捨てられず、キャッシュに残る"
    holds, seen = _dropped(before, after), f"{before} → {after} MiB"
    world.control("synced-copy-can-be-dropped", holds, why=why, seen=seen)


def _locked(world: World) -> None:
    world.section("locked", "2つを写し終えるまで、ロックで書き込みを待たせる")
    world.file("shop.py", _SHOP, unseen=True)
    world.ask("touch lock")
    service, backup = world.python(), world.python()
    service("from shop import sell")
    service("sell(3)")
    backup("import fcntl")
    backup("lock = open('lock')")
    backup("fcntl.flock(lock, fcntl.LOCK_EX)")
    world.do("cp orders backup-orders")
    service.begin("sell(4)")
    world.do("cp stock backup-stock")
    backup("lock.close()")
    service.finish()
    total = _sum(world)
    why = "写す間に書き換わらなければ、同じ時点の組になる"
    world.control("copy-during-writes-is-torn", _differs(total), why=why, seen=f"足すと{total}")
    service.close()
    backup.close()
