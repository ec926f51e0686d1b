"""What a huge page saves and costs: faults, memory, page tables and TLB reach."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labs.harness import Lab, Session, World, program, trial

LAB = Lab(
    title="ヒュージページとTLBの届く範囲",
    chapter="os/virtual-memory",
    shows="同じ量を4 KiBと2 MiBのページで使い、フォルト、使用量、アクセスの時間を比べます。",
    facts={
        "madvise-gives-huge-pages": "MADV_HUGEPAGEを指定した領域に書くと、ヒュージページになる",
        "one-fault-per-huge-page": "同じ量を書いても、フォルトは2 MiBごとに1回で済む",
        "one-byte-takes-2-mib": "1バイト書くだけで、2 MiBの物理メモリを使う",
        "page-tables-stay-the-same": "THPでは、ページテーブルの量（VmPTE）は減らない",
        "partial-change-splits": "一部の権限だけを変えると、そこの対応は4 KiBごとに分かれる",
        "far-access-is-cheaper": "広い範囲を飛び飛びに読むと、1回あたりの時間が短くなる",
        "no-gain-within-tlb-reach": "TLBに載る狭い範囲なら、1回あたりの時間は変わらない",
    },
    needs=(
        program("gcc"),
        program("python3"),
        trial(
            "Cのヘッダー",
            "echo '#include <sys/mman.h>' | gcc -E -o /dev/null -",
            "sudo apt-get install -y libc6-dev",
            "libc6-dev",
        ),
        trial(
            "THP（neverでない設定）",
            r"grep -Eq '\[(always|madvise)\]' /sys/kernel/mm/transparent_hugepage/enabled",
            "/sys/kernel/mm/transparent_hugepage/enabledをmadviseにできる機械で動かします",
        ),
        trial(
            "4 KiBのページと2 MiBのヒュージページ",
            "[ $(getconf PAGESIZE) = 4096 ] && "
            "[ $(cat /sys/kernel/mm/transparent_hugepage/hpage_pmd_size) = 2097152 ]",
            "ページの大きさが4 KiBと2 MiBの機械（x86-64など）で動かします",
        ),
    ),
    seconds=12,
    limit=120,
    alone=True,
)

_SIZE = 128  # MiB
_HUGE = 2048  # kB
_FAR, _NEAR = 16384, 32  # pages

_PAGES = """\
import ctypes, mmap, resource
from mmap import MADV_HUGEPAGE, MADV_NOHUGEPAGE

libc = ctypes.CDLL(None, use_errno=True)


def allocate(mib, advice):
    \"\"\"匿名の領域を確保し、ヒュージページを使うかどうかを伝える。\"\"\"
    m = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    m.madvise(advice)
    return m


def write(m):
    \"\"\"4 KiBごとに1バイト書き、その間のマイナーフォルトの回数を答える。\"\"\"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for at in range(0, len(m), mmap.PAGESIZE):
        m[at] = 1
    print("フォルト", resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


def forbid_writing(m, start, size):
    \"\"\"領域の一部を、読み出しだけにする（mprotect）。\"\"\"
    address = ctypes.addressof(ctypes.c_char.from_buffer(m))
    base = (address + (1 << 21) - 1) >> 21 << 21  # 2 MiBの境界
    if libc.mprotect(ctypes.c_void_p(base + start), ctypes.c_size_t(size), mmap.PROT_READ):
        raise OSError(ctypes.get_errno(), "mprotect")
"""

_CHASE = """\
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { STEPS = 2000000, ROUNDS = 9 };
static const size_t page = 4096, huge = 2 << 20;

static double cpu_time(void) {  // このプロセスのCPU時間（ナノ秒）
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static char *area(size_t size, int advice) {  // 2 MiBの境界から始まる領域
    char *p = mmap(NULL, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p = (char *)(((size_t)p + huge - 1) & ~(huge - 1));
    madvise(p, size, advice);
    memset(p, 1, size);
    return p;
}

static void **one(char *p, size_t n) {  // n番目のページの中の1か所
    return (void **)(p + n * page + n % 64 * 64);
}

static void **cycle(char *p, size_t pages) {  // すべてのページを、ばらばらの順に1周する鎖
    size_t *order = malloc(pages * sizeof *order);
    for (size_t i = 0; i < pages; i++) order[i] = i;
    for (size_t i = pages - 1; i > 0; i--) {
        size_t j = rand() % (i + 1), t = order[i];
        order[i] = order[j], order[j] = t;
    }
    for (size_t i = 0; i < pages; i++)
        *one(p, order[i]) = one(p, order[(i + 1) % pages]);
    free(order);
    return one(p, 0);
}

static double walk(void **at) {  // 鎖をたどる。前の読み出しが済むまで次の番地は分からない
    double before = cpu_time();
    for (int i = 0; i < STEPS; i++) at = *at;
    double after = cpu_time();
    if (!at) puts("");
    return (after - before) / STEPS;
}

int main(int argc, char **argv) {
    size_t pages = atol(argv[1]);
    void **start[] = {cycle(area(pages * page, MADV_NOHUGEPAGE), pages),
                      cycle(area(pages * page, MADV_HUGEPAGE), pages)};
    double best[] = {1e9, 1e9};
    for (int i = 0; i < ROUNDS * 2; i++) {  // 交互に測り、最もよい値をとる
        double t = walk(start[i % 2]);
        if (t < best[i % 2]) best[i % 2] = t;
    }
    printf("%zuページ: 4 KiB %.2f ns、2 MiB %.2f ns\\n", pages, best[0], best[1]);
}
"""


@dataclass
class _Stage:
    """A Python prompt, and the commands that look at its memory."""

    world: World
    here: Session

    def huge(self) -> int:
        """Show and return how many kB lie in huge pages."""
        done = self.world.do(f"grep AnonHugePages /proc/{self.here.pid}/smaps_rollup")
        return _kilobytes(done.text)["AnonHugePages"]

    def status(self) -> dict[str, int]:
        """Show and return the memory used and the page tables, in kB."""
        done = self.world.do(f"grep -E '^Vm(RSS|PTE)' /proc/{self.here.pid}/status")
        return _kilobytes(done.text)


def _kilobytes(text: str) -> dict[str, int]:
    return {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}


def _stage(world: World) -> _Stage:
    here = world.python()
    world.name("pid", here.pid)
    here("from pages import *")
    return _Stage(world, here)


def run(world: World) -> None:
    """Write the same bytes with small and with huge pages, then read them far apart."""
    world.section("setting", "設定を見る")
    world.say("角括弧で囲まれたものが、今の設定です。neverなら、この実験は動きません。")
    world.do("cat /sys/kernel/mm/transparent_hugepage/enabled")
    world.file("pages.py", _PAGES, unseen=True)
    small, huge = _write_both(world)
    _tables(world, small, huge)
    _one_byte(world)
    _split(world)
    _far_and_near(world)


@dataclass
class _Written:
    """What writing 128 MiB took: faults, and kB in huge pages and in page tables."""

    faults: int
    huge: int
    tables: int


def _write(stage: _Stage, advice: str) -> _Written:
    stage.here(f"m = allocate({_SIZE}, {advice})")
    before = stage.status()["VmPTE"]
    faults = int(stage.here("write(m)").split()[1])
    huge = stage.huge()
    return _Written(faults, huge, stage.status()["VmPTE"] - before)


def _write_both(world: World) -> tuple[_Written, _Written]:
    world.section("small", "4 KiBのページで、128 MiBに書く")
    world.say("MADV_NOHUGEPAGEで、ヒュージページを使わせません。")
    stage = _stage(world)
    small = _write(stage, "MADV_NOHUGEPAGE")
    stage.here.close()
    world.section("huge", "2 MiBのページで、同じ量を書く")
    world.say("MADV_HUGEPAGEで、使ってよいと伝えます。書く量は同じです。")
    stage = _stage(world)
    huge = _write(stage, "MADV_HUGEPAGE")
    stage.here.close()
    seen = f"AnonHugePages {small.huge} kBと{huge.huge} kB"
    world.fact("madvise-gives-huge-pages", _given(huge), seen=seen)
    seen = f"フォルト{small.faults}回と{huge.faults}回、比は{small.faults / huge.faults:.0f}"
    world.fact("one-fault-per-huge-page", _fewer(small, huge), seen=seen)
    return small, huge


def _given(written: _Written) -> bool:
    return written.huge >= _SIZE * 1024 * 9 // 10


def _fewer(small: _Written, huge: _Written) -> bool:
    return small.faults > 20 * huge.faults


def _same_tables(small: _Written, huge: _Written) -> bool:
    return huge.tables > small.tables * 9 // 10


def _tables(world: World, small: _Written, huge: _Written) -> None:
    world.section("page-tables", "ページテーブルの量を比べる")
    world.say(
        "上の2つで増えたVmPTEを比べます。カーネルは、分割に備えて下の段の表も取っておきます。"
    )
    seen = f"{small.tables} kBと{huge.tables} kB増えた"
    world.fact("page-tables-stay-the-same", _same_tables(small, huge), seen=seen)


def _one_byte_costs(world: World, advice: str) -> int:
    """Write one byte in the middle; return how many kB of memory it took."""
    stage = _stage(world)
    stage.here(f"m = allocate({_SIZE}, {advice})")
    before = stage.status()["VmRSS"]
    stage.here("m[64 << 20] = 1")
    cost = stage.status()["VmRSS"] - before
    stage.huge()
    stage.here.close()
    return cost


def _dear(cost: int) -> bool:
    """Return whether it took a huge page (VmRSS is not exact)."""
    return cost > _HUGE * 3 // 4


def _one_byte(world: World) -> None:
    world.section("one-byte", "1バイトだけ書く")
    world.say("128 MiBの真ん中に、1バイトだけ書きます。")
    cost = _one_byte_costs(world, "MADV_HUGEPAGE")
    world.fact("one-byte-takes-2-mib", _dear(cost), seen=f"VmRSSが{cost} kB増えた")


def _loss(world: World, size: int) -> int:
    """Forbid writing to a part; return how many kB are no longer in a huge page."""
    stage = _stage(world)
    stage.here("m = allocate(8, MADV_HUGEPAGE)")
    stage.here("write(m)")
    before = stage.huge()
    stage.here(f"forbid_writing(m, 2 << 20, {size})")
    lost = before - stage.huge()
    stage.here.close()
    return lost


def _split(world: World) -> None:
    world.section("split", "ヒュージページの一部だけを変える")
    world.say("1つのヒュージページの中の4 KiBだけを、書き込み禁止にします。")
    lost = _loss(world, 4096)
    world.fact("partial-change-splits", lost >= _HUGE, seen=f"{lost} kBが、4 KiBごとの対応になった")


def _ratio(world: World, pages: int) -> tuple[float, str]:
    """Measure accesses over so many pages; return small over huge, and the words for it."""
    done = world.do(f"./chase {pages}")
    match = done.find(r"4 KiB ([\d.]+) ns、2 MiB ([\d.]+) ns")
    small, huge = float(match[1]), float(match[2])
    return small / huge, f"1回{small} nsと{huge} ns、比は{small / huge:.2f}"


def _cheaper(ratio: float) -> bool:
    return ratio > 1.1


def _far_and_near(world: World) -> None:
    world.section("tlb-reach", "飛び飛びに読む")
    world.say("4 KiBごとに1か所、ばらばらの順に読みます。読む回数は同じで、広さだけを変えます。")
    world.file("chase.c", _CHASE)
    world.do("gcc -O2 -o chase chase.c")
    world.say("まず、64 MiBの範囲です。4 KiBなら16384ページ、2 MiBなら32ページにまたがります。")
    ratio, seen = _ratio(world, _FAR)
    world.fact("far-access-is-cheaper", _cheaper(ratio), seen=seen)
    world.say("次に、128 KiBの範囲です。4 KiBのページでも32ページです。")
    ratio, seen = _ratio(world, _NEAR)
    world.fact("no-gain-within-tlb-reach", not _cheaper(ratio), seen=seen)


def control(world: World) -> None:
    """Take the causes away: no advice to use huge pages, whole pages, another size of area."""
    world.section("no-advice", "ヒュージページを使わせない")
    world.file("pages.py", _PAGES, unseen=True)
    _without_advice(world)
    _untouched(world)
    _whole(world)
    _other_sizes(world)


def _without_advice(world: World) -> None:
    stage = _stage(world)
    small = _write(stage, "MADV_NOHUGEPAGE")
    stage.here.close()
    why = "MADV_NOHUGEPAGEなら、ヒュージページは使われない"
    holds, seen = _given(small), f"AnonHugePages {small.huge} kB"
    world.control("madvise-gives-huge-pages", holds, why=why, seen=seen)
    why = "4 KiBのページなら、ページの数だけフォルトが起きる"
    holds = _fewer(_Written(_SIZE * 256, 0, 0), small)
    world.control("one-fault-per-huge-page", holds, why=why, seen=f"フォルト{small.faults}回")
    cost = _one_byte_costs(world, "MADV_NOHUGEPAGE")
    why = "4 KiBのページなら、1バイトのために2 MiBは使わない"
    seen = f"VmRSSが{cost} kB増えた"
    world.control("one-byte-takes-2-mib", _dear(cost), why=why, seen=seen)


def _untouched(world: World) -> None:
    world.section("untouched", "確保するだけで、書かない")
    stage = _stage(world)
    before = stage.status()["VmPTE"]
    stage.here(f"m = allocate({_SIZE}, MADV_HUGEPAGE)")
    tables = stage.status()["VmPTE"] - before
    stage.here.close()
    why = "書かなければ、備えの表も作られない"
    holds = _same_tables(_Written(0, 0, _SIZE * 2), _Written(0, 0, tables))
    world.control("page-tables-stay-the-same", holds, why=why, seen=f"{tables} kB増えた")


def _whole(world: World) -> None:
    world.section("whole", "ヒュージページを丸ごと変える")
    lost = _loss(world, 2 << 20)
    why = "2 MiBを丸ごと変えるなら、分割は要らない"
    world.control("partial-change-splits", lost >= _HUGE, why=why, seen=f"減ったのは{lost} kB")


def _other_sizes(world: World) -> None:
    world.section("other-sizes", "広さを入れ替える")
    world.file("chase.c", _CHASE, unseen=True)
    world.do("gcc -O2 -o chase chase.c")
    ratio, seen = _ratio(world, _NEAR)
    why = "TLBに載る広さなら、速くならない"
    world.control("far-access-is-cheaper", _cheaper(ratio), why=why, seen=seen)
    ratio, seen = _ratio(world, _FAR)
    why = "TLBに載らない広さなら、差が出る"
    world.control("no-gain-within-tlb-reach", not _cheaper(ratio), why=why, seen=seen)
