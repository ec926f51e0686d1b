"""What a context switch is, when it is counted, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from labs.harness import Background, Done, Lab, World, program, trial

LAB = Lab(
    title="コンテキストスイッチの回数と費用",
    chapter="os/context-switch",
    shows="2つのタスクに交互に仕事をさせ、切り替えの回数と、1回あたりの費用を測ります。",
    facts={
        "system-call-is-not-a-switch": "システムコールを呼ぶだけでは、ほとんど切り替わらない",
        "turns-on-one-cpu-switch": "1つのCPUで交互に動く2つのタスクは、交代のたびに切り替わる",
        "own-cpu-still-switches": "CPUを1つずつ与えても、相手を待てば自発的に切り替わる",
        "status-counts-one-thread": "/proc/PID/statusの回数は、最初のスレッドの分だけである",
        "system-counter-includes-all": "/proc/statのctxtは、ほかのタスクの切り替えも数える",
        "switch-costs-more-than-calls": "同じ数のreadとwriteでも、交代を挟むとCPU時間が増える",
        "cache-is-cold-after-switch": "相手が大きなデータを使うと、戻ってからの読み直しが遅くなる",
    },
    needs=(
        program("gcc"),
        program("python3"),
        program("chrt", "util-linux"),
        trial(
            "Cのヘッダー",
            "echo '#include <pthread.h>' | gcc -E -o /dev/null -",
            "sudo apt-get install -y libc6-dev",
            "libc6-dev",
        ),
        trial(
            "CPU 0と1",
            "taskset -c 0 true && taskset -c 1 true",
            "CPU 0と1を使える環境で動かします",
        ),
    ),
    seconds=30,
    limit=120,
    alone=True,
)

_PINGPONG = """\
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int to_a[2], to_b[2], rounds, stay;

static void begin(int cpu) {  // 使うCPUを1つに決める
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void end(char who) {  // 自分のCPU時間と、切り替わった回数
    struct timespec t;
    struct rusage u;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    getrusage(RUSAGE_THREAD, &u);
    long us = t.tv_sec * 1000000 + t.tv_nsec / 1000;
    dprintf(1, "%c: CPU時間 %ldマイクロ秒 自発的 %ld回 非自発的 %ld回\\n",
            who, us, u.ru_nvcsw, u.ru_nivcsw);
    if (stay) pause();
}

static void *a(void *cpu) {  // Bに1バイト渡し、返るのを待つ
    char c = 0;
    begin(*(int *)cpu);
    for (int i = 0; i < rounds; i++) write(to_b[1], &c, 1), read(to_a[0], &c, 1);
    end('A');
    return NULL;
}

static void *b(void *cpu) {  // 待って、返す
    char c;
    begin(*(int *)cpu);
    for (int i = 0; i < rounds; i++) read(to_b[0], &c, 1), write(to_a[1], &c, 1);
    end('B');
    return NULL;
}

static void alone(int getppid_only) {  // 1往復と同じ、4回のシステムコール
    char c = 0;
    for (int i = 0; i < 2 * rounds; i++)
        if (getppid_only) syscall(SYS_getppid), syscall(SYS_getppid);
        else write(to_a[1], &c, 1), read(to_a[0], &c, 1);
    end('A');
}

int main(int n, char **arg) {  // 方式 AのCPU BのCPU 往復の数
    int cpu[] = {atoi(arg[2]), atoi(arg[3])};
    pthread_t t[2];
    rounds = atoi(arg[4]);
    stay = n > 5;
    pipe(to_a), pipe(to_b);
    if (!strcmp(arg[1], "processes")) {
        if (fork()) a(cpu), wait(NULL);
        else b(cpu + 1);
    } else if (!strcmp(arg[1], "threads")) {
        pthread_create(t, NULL, a, cpu), pthread_create(t + 1, NULL, b, cpu + 1);
        pthread_join(t[0], NULL), pthread_join(t[1], NULL);
    } else {
        begin(cpu[0]);
        alone(!strcmp(arg[1], "getppid"));
    }
}
"""

_COMPARE = """\
import re, subprocess, sys

ROUNDS = 50000
best = {}
for _ in range(7):  # 順に測ることを繰り返し、いちばん少ない回を取る
    for way in sys.argv[1:]:
        command = ["./pingpong", way, "0", "0", str(ROUNDS)]
        text = subprocess.run(command, capture_output=True, text=True).stdout
        used = sum(int(x) for x in re.findall(r"CPU時間 (\\d+)", text))
        best[way] = min(used, best.get(way, used))
for way, used in best.items():
    print(f"{way}: 1往復 {used * 1000 / ROUNDS:.0f}ナノ秒")
"""

_COLD = """\
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { MINE = 256 };

static size_t *ring(size_t kib) {  // 64バイトごとに、ばらばらな順で1周する道
    size_t n = kib * 16, *at = malloc(n * 64 + 64), *order = malloc(n * sizeof *order + 8);
    for (size_t i = 0; i < n; i++) order[i] = i;
    for (size_t i = n; i > 1; i--) {
        size_t j = random() % i, o = order[i - 1];
        order[i - 1] = order[j], order[j] = o;
    }
    for (size_t i = 0; i < n; i++) at[order[i] * 8] = order[(i + 1) % n] * 8;
    return at;
}

static long lap(size_t *at, size_t kib) {  // 1周にかかった時間
    struct timespec s, e;
    static volatile size_t p;
    size_t q = 0;
    clock_gettime(CLOCK_MONOTONIC, &s);
    for (size_t i = 0; i < kib * 16; i++) q = at[q];
    clock_gettime(CLOCK_MONOTONIC, &e);
    p = q;
    return (e.tv_sec - s.tv_sec) * 1000000000 + e.tv_nsec - s.tv_nsec;
}

static int by(const void *a, const void *b) {
    return *(long *)a < *(long *)b ? -1 : *(long *)a > *(long *)b;
}

int main(int n, char **arg) {  // 相手が使うKiB 測る回数
    int go[2], back[2], other = atoi(arg[1]), rounds = atoi(arg[2]);
    long first[rounds], second[rounds];
    char c = 0;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(0, &set);  // 2つとも、CPU 0だけを使う
    sched_setaffinity(0, sizeof set, &set);
    pipe(go), pipe(back);
    if (!fork()) {
        size_t *theirs = ring(other);
        for (close(go[1]); read(go[0], &c, 1) == 1; write(back[1], &c, 1)) lap(theirs, other);
        return 0;
    }
    size_t *mine = ring(MINE);
    for (int i = 0; i < rounds; i++) {
        write(go[1], &c, 1), read(back[0], &c, 1);  // 相手に代わり、戻ってくる
        first[i] = lap(mine, MINE), second[i] = lap(mine, MINE);
    }
    qsort(first, rounds, sizeof *first, by), qsort(second, rounds, sizeof *second, by);
    printf("1周目 %ld 2周目 %ld（ナノ秒、中央値）\\n", first[rounds / 2], second[rounds / 2]);
}
"""

_ROUNDS = 50000


@dataclass(frozen=True)
class _Task:
    """How often one task was switched away."""

    voluntary: int
    involuntary: int

    @property
    def total(self) -> int:
        """Return all switches."""
        return self.voluntary + self.involuntary


def run(world: World) -> None:
    """Count switches by several ways of working; compare their costs."""
    world.section("program", "2つのタスクに1バイトを往復させる")
    world.say("AとBが、2本のパイプで1バイトを渡し合います。1往復で、readとwriteを2回ずつ呼びます。")
    world.say("`getppid`と`alone`では、同じ4回のシステムコールを1つのタスクだけで呼びます。")
    world.file("pingpong.c", _PINGPONG)
    _compile(world, "pingpong")
    _calls(world)
    _turns(world)
    _own_cpus(world)
    _threads(world)
    _system(world)
    _costs(world)
    _cold_cache(world)


def _compile(world: World, name: str) -> None:
    world.do(f"gcc -O2 -w -pthread -o {name} {name}.c")


def _play(world: World, way: str, cpus: str = "0 0", before: str = "") -> list[_Task]:
    done = world.do(f"{before}./pingpong {way} {cpus} {_ROUNDS}")
    return [_Task(int(m[0]), int(m[1])) for m in done.all(r" 自発的 (\d+)回 非自発的 (\d+)回")]


def _words(tasks: list[_Task]) -> str:
    each = (f"自発的{task.voluntary}回、非自発的{task.involuntary}回" for task in tasks)
    return f"{_ROUNDS}往復で、{'。'.join(each)}"


def _few(tasks: list[_Task]) -> bool:
    """Return whether there were far fewer switches than system calls."""
    return sum(task.total for task in tasks) < 4 * _ROUNDS / 100


def _every_turn(tasks: list[_Task]) -> bool:
    """Return whether each task was switched in every round (the first and last may miss)."""
    return min(task.total for task in tasks) >= 0.99 * _ROUNDS


def _waits(tasks: list[_Task]) -> bool:
    """Return whether the tasks mostly waited; a fast partner may answer before the read."""
    return sum(task.voluntary for task in tasks) > _ROUNDS / 2


def _calls(world: World) -> None:
    world.section("calls", "システムコールを20万回呼ぶ")
    world.say("親のPIDを返すだけの`getppid`を、1つのタスクが20万回呼びます。")
    tasks = _play(world, "getppid")
    world.fact("system-call-is-not-a-switch", _few(tasks), seen=_words(tasks))


def _turns(world: World) -> None:
    world.section("turns", "1つのCPUで交代する")
    world.say("2つのプロセスに、CPU 0だけを許します。")
    tasks = _play(world, "processes")
    world.fact("turns-on-one-cpu-switch", _every_turn(tasks), seen=_words(tasks))
    world.say("起こした相手がすぐに割り込むと、待つ前にCPUを取り上げられ、非自発的に数えられます。")
    world.say("`SCHED_BATCH`は、起きたときに割り込まない方式です。")
    _play(world, "processes", before="chrt --batch 0 ")


def _own_cpus(world: World) -> None:
    world.section("own-cpus", "CPUを1つずつ与える")
    world.say("AにはCPU 0、BにはCPU 1を許します。数では、CPUが足りています。")
    tasks = _play(world, "processes", "0 1")
    world.fact("own-cpu-still-switches", _waits(tasks), seen=_words(tasks))


def _stay(world: World, way: str) -> Background:
    """Start a program that stays when it has counted; name its threads."""
    background = world.start(f"./pingpong {way} 0 0 {_ROUNDS} stay")
    world.until(lambda: len(background.lines) >= 2, "AとBの終わり")
    world.name("pid", background.pid)
    world.name("tid", *world.ask(f"ls /proc/{background.pid}/task").text.split())
    return background


def _by_file(world: World, way: str) -> tuple[int, int]:
    """Return what /proc/PID/status counts, and the sum of its threads."""
    pid = _stay(world, way).pid
    status = world.do(f"grep ctxt /proc/{pid}/status")
    each = world.do(f"grep -h ctxt /proc/{pid}/task/*/status")
    return _sum(status), _sum(each)


def _sum(done: Done) -> int:
    return sum(int(x) for x in done.all(r"ctxt_switches:\t(\d+)"))


def _one_thread(counts: tuple[int, int]) -> bool:
    return counts[0] < counts[1] / 100


def _by_file_words(counts: tuple[int, int]) -> str:
    return f"statusは{counts[0]}回、スレッドごとの合計は{counts[1]}回"


def _threads(world: World) -> None:
    world.section("threads", "スレッドの回数を探す")
    world.say("同じことを、2つのスレッドにさせます。最初のスレッドは、終わりを待つだけです。")
    counts = _by_file(world, "threads")
    world.fact("status-counts-one-thread", _one_thread(counts), seen=_by_file_words(counts))


def _total(world: World, way: str) -> int:
    command = f"grep ctxt /proc/stat; ./pingpong {way} 0 0 {_ROUNDS}; grep ctxt /proc/stat"
    done = world.do(command)
    before, after = (int(x) for x in done.all(r"^ctxt (\d+)"))
    return after - before


def _includes(more: int) -> bool:
    return more >= 0.99 * 2 * _ROUNDS


def _system(world: World) -> None:
    world.section("system", "機械全体の回数")
    world.say("`vmstat`の`cs`は、この数の1秒あたりの増え方です。")
    more = _total(world, "processes")
    world.fact("system-counter-includes-all", _includes(more), seen=f"{more}回増えた")


def _price(world: World, ways: str) -> dict[str, int]:
    done = world.do(f"python3 compare.py {ways}")
    return {m[0]: int(m[1]) for m in done.all(r"^(\w+): 1往復 (\d+)")}


def _dear(calls: int, turns: int) -> bool:
    return turns > 1.3 * calls


def _prices(calls: int, turns: int) -> str:
    return f"1往復のCPU時間は{calls}と{turns}ナノ秒、比は{turns / calls:.1f}"


def _costs(world: World) -> None:
    world.section("costs", "費用を比べる")
    world.say("AとBのCPU時間を合わせ、1往復あたりにします。どれもCPU 0だけを使います。")
    world.file("compare.py", _COMPARE)
    price = _price(world, "getppid alone threads processes")
    pair = price["alone"], price["threads"]
    world.fact("switch-costs-more-than-calls", _dear(*pair), seen=_prices(*pair))


def _cold(world: World, other: int, rounds: int) -> tuple[bool, str]:
    done = world.do(f"./cold {other} {rounds}")
    match = done.find(r"1周目 (\d+) 2周目 (\d+)")
    ratio = int(match[1]) / int(match[2])
    return ratio > 1.2, f"1周目は2周目の{ratio:.2f}倍"


def _cold_cache(world: World) -> None:
    world.section("cold-cache", "キャッシュから押し出される")
    world.say("自分の256 KiBを2周読み、相手に代わります。相手は、自分の4 MiBを1周読んで返します。")
    world.say("戻ってからの1周目と2周目の時間を、1000回測って比べます。")
    world.file("cold.c", _COLD)
    _compile(world, "cold")
    _cold(world, 4096, 1000)
    world.say("相手の量を32 MiBに増やし、100回測ります。")
    holds, seen = _cold(world, 32768, 100)
    world.fact("cache-is-cold-after-switch", holds, seen=seen)


def control(world: World) -> None:
    """Take the causes away: waiting, the partner, and the partner's data."""
    world.section("counts", "待つことをなくす、加える")
    world.file("pingpong.c", _PINGPONG, unseen=True)
    world.file("compare.py", _COMPARE, unseen=True)
    world.file("cold.c", _COLD, unseen=True)
    _compile(world, "pingpong")
    _compile(world, "cold")
    _with_waiting(world)
    _without_partner(world)
    _one_is_all(world)
    _without_cost(world)


def _with_waiting(world: World) -> None:
    tasks = _play(world, "threads")
    why = "同じ数のシステムコールでも、相手を待てば切り替わる"
    world.control("system-call-is-not-a-switch", _few(tasks), why=why, seen=_words(tasks))


def _without_partner(world: World) -> None:
    world.say("同じ回数のreadとwriteを、1つのタスクだけで呼びます。データは、いつも届いています。")
    tasks = _play(world, "alone")
    why = "交代する相手がいなければ、切り替わらない"
    world.control("turns-on-one-cpu-switch", _every_turn(tasks), why=why, seen=_words(tasks))
    why = "待たなければ、自発的には切り替わらない"
    world.control("own-cpu-still-switches", _waits(tasks), why=why, seen=_words(tasks))
    more = _total(world, "getppid")
    why = "切り替えがなければ、その分は増えない"
    world.control("system-counter-includes-all", _includes(more), why=why, seen=f"{more}回増えた")


def _one_is_all(world: World) -> None:
    world.section("processes", "スレッドを1つにする")
    world.say("プロセスどうしで往復させ、Aのプロセスを見ます。")
    counts = _by_file(world, "processes")
    why = "スレッドが1つなら、statusの回数がすべてである"
    world.control(
        "status-counts-one-thread", _one_thread(counts), why=why, seen=_by_file_words(counts)
    )


def _without_cost(world: World) -> None:
    world.section("costs", "切り替えや、相手のデータをなくす")
    pair = tuple(_price(world, "alone")["alone"] for _ in "ab")
    why = "どちらも切り替えを挟まなければ、差はない"
    world.control("switch-costs-more-than-calls", _dear(*pair), why=why, seen=_prices(*pair))
    holds, seen = _cold(world, 0, 1000)
    why = "相手がデータを使わなければ、切り替わっても1周目は遅くならない"
    world.control("cache-is-cold-after-switch", holds, why=why, seen=seen)
