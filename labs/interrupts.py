"""Which CPU serves an interrupt, who decides it, and how received packets are spread."""

from __future__ import annotations

import os
import re
from pathlib import Path

from labs.harness import Done, Lab, Namespace, World, only, program, trial

_DISK = Path("/var/tmp")


def _irqs(folder: Path) -> list[str]:
    """Return the interrupts of the disk that a folder is on (none where nobody counts them)."""
    device = folder.stat().st_dev
    here = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    for place in (here, *here.parents):
        if (place / "msi_irqs").is_dir():
            return sorted((irq.name for irq in (place / "msi_irqs").iterdir()), key=int)
    return []


def _unfit() -> str:
    """Return why this machine is not fit, or nothing."""
    if (os.cpu_count() or 1) < 2:
        return "CPUが2つ以上あるマシンで動かしてください"
    if not _irqs(_DISK):
        return "ディスクが自分のIRQを持つマシンで動かしてください（Hyper-Vやtmpfsにはありません）"
    return ""


LAB = Lab(
    title="割り込みが届くCPU",
    chapter="os/interrupts",
    shows="ディスク、タイマー、ネットワークの割り込みを起こし、どのCPUの回数が増えるかを数えます。",
    facts={
        "disk-reads-raise-its-irq": "ディスクを読むと、そのディスクのIRQの回数が増える",
        "irqs-are-not-all-on-cpu-0": "割り込みは、CPU 0だけに届くのではない",
        "default-allows-every-cpu": "新しいIRQは、既定ではどのCPUでも処理してよい",
        "effective-affinity-is-where-it-goes": (
            "IRQが届くのは、effective_affinity_listに並ぶCPUである"
        ),
        "timer-interrupts-a-busy-cpu": "計算だけをしているCPUにも、タイマー割り込みが届く",
        "packets-raise-net-rx": "パケットを受け取ると、ソフト割り込みNET_RXの回数が増える",
        "veth-receives-on-the-sending-cpu": "vethで届くパケットは、送ったCPUが受信処理をする",
        "rps-moves-the-receiving": "RPSを設定すると、受信処理が指定したCPUに移る",
    },
    needs=(
        program("taskset", "util-linux"),
        program("ping", "iputils-ping"),
        program("ip", "iproute2"),
        program("dd", "coreutils"),
        trial("CPU 0とCPU 1", "taskset -c 0 true && taskset -c 1 true", "2つのCPUを許してください"),
        trial("RPS", "ls /sys/class/net/lo/queues/rx-0/rps_cpus", "CONFIG_RPSが要ります"),
    ),
    topology=(("client", "eth0", "192.0.2.1/24"), ("server", "eth0", "192.0.2.2/24")),
    seconds=5,
    alone=True,
    root=True,
    disk=True,
    machine_wide=True,
    unfit=_unfit,
)

_READS = 2000
_PINGS = 2000

_GREW = """\
import re, subprocess, sys


def counts(name):
    with open(name) as lines:
        cpus = len(next(lines).split())
        rows = (line.split() for line in lines)
        return {r[0]: (r[1 : cpus + 1], r[cpus + 1 :]) for r in rows if len(r) > cpus}


name, wanted, *command = sys.argv[1:]
before = counts(name)
subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
for row, (after, text) in counts(name).items():
    if re.search(wanted, " ".join([row, *text])):
        grown = [int(new) - int(old) for old, new in zip(before[row][0], after)]
        print(row, *(f"CPU{cpu} +{n}" for cpu, n in enumerate(grown)), *text)
"""

_SPIN = """\
import time

while time.process_time() < 1:  # CPUを1秒分使うまで
    pass
"""


def run(world: World) -> None:
    """Count what the disk, the timer and packets add to each CPU's interrupts."""
    _table(world)
    _disk(world)
    _timer(world)
    client, server = _hosts(world)
    _packets(world, client)
    _steering(world, client, server)


def _rows(done: Done) -> dict[str, list[int]]:
    """Return the numbers of each line of /proc/interrupts, CPU by CPU."""
    cpus = len(done.lines[0].split())
    rows = (line.split() for line in done.lines[1:])
    return {row[0]: [int(n) for n in row[1 : cpus + 1]] for row in rows if len(row) > cpus}


def _table(world: World) -> None:
    world.section("table", "割り込みの表を見る")
    world.say("番号の行が装置の割り込み（IRQ）です。起動してからの回数が、CPUごとに並びます。")
    irqs = "|".join(_irqs(world.disk))
    mine = only(rf"CPU0|^ *({irqs}):|^ *LOC:")
    rows = _rows(world.do("cat /proc/interrupts", show=mine))
    devices = [counts for name, counts in rows.items() if name[:-1].isdigit()]
    elsewhere = [counts for counts in devices if sum(counts[1:])]
    seen = f"{len(devices)}個のIRQのうち、CPU 0以外に届いたものが{len(elsewhere)}個"
    world.fact("irqs-are-not-all-on-cpu-0", elsewhere, seen=seen)
    world.say("次は、新しいIRQに許すCPUの集合です。16進数の下の桁から、CPU 0、CPU 1と数えます。")
    mask = world.do("cat /proc/irq/default_smp_affinity").text.strip()
    allowed, cpus = int(mask.replace(",", ""), 16), os.cpu_count() or 1
    holds, seen = allowed & (1 << cpus) - 1 == (1 << cpus) - 1, f"{cpus}個のCPUのすべて"
    world.fact("default-allows-every-cpu", holds, seen=seen)


def _grown(done: Done) -> dict[str, list[int]]:
    """Return by how much each row grew, CPU by CPU."""
    rows = {line.split(":")[0]: re.findall(r"CPU\d+ \+(\d+)", line) for line in done.lines}
    return {row: [int(n) for n in grown] for row, grown in rows.items()}


def _read(world: World, options: str) -> dict[str, list[int]]:
    """Read a file piece by piece; return by how much the disk's interrupts grew."""
    world.ask(f"dd if=/dev/zero of={world.disk}/data bs=4k count={_READS} conv=fsync")
    world.file("disk-irqs", f"^({'|'.join(_irqs(world.disk))}):", unseen=True)
    world.say(
        f"4 KiBずつ、{_READS}回読みます。disk-irqsには、ディスクのIRQの番号を書いてあります。"
    )
    command = f"dd if={world.disk}/data of=/dev/null bs=4k {options}status=none"
    return _grown(world.do(f'python3 grew.py /proc/interrupts "$(cat disk-irqs)" {command}'))


def _disk(world: World) -> None:
    world.section("disk", "ディスクの割り込みを数える")
    world.say("コマンドの前と後で表を読み、増えた分を表示するプログラムです。")
    world.file("grew.py", _GREW)
    grown = _read(world, "iflag=direct ")
    seen = f"{_READS}回読み、割り込みは+{_total(grown)}"
    world.fact("disk-reads-raise-its-irq", _raised(grown), seen=seen)
    world.say("許すCPUの一覧と、実際に届くCPUの一覧は、別のファイルにあります。")
    busy = max(grown, key=lambda irq: sum(grown[irq]))
    world.file("busy-irq", busy, unseen=True)
    world.do("cd /proc/irq/$(cat busy-irq) && grep . smp_affinity_list effective_affinity_list")
    holds = _arrived_at(grown[busy], _effective(world, busy))
    seen = "、".join(f"CPU {cpu}に+{n}" for cpu, n in enumerate(grown[busy]) if n)
    world.fact("effective-affinity-is-where-it-goes", holds, seen=seen)
    _try_to_move(world, busy)


def _try_to_move(world: World, irq: str) -> None:
    """Ask for CPU 0, which some interrupts refuse; the old list comes back at the end."""
    allowed = world.ask(f"cat /proc/irq/{irq}/smp_affinity_list").text.strip()
    world.undo(f"echo {allowed} > /proc/irq/{irq}/smp_affinity_list")
    world.say("許すCPUを0だけに変えてみます。カーネルが配置を決めているIRQは、書き込みを断ります。")
    world.do("echo 0 > /proc/irq/$(cat busy-irq)/smp_affinity_list", code=None)
    world.do("cd /proc/irq/$(cat busy-irq) && grep . smp_affinity_list effective_affinity_list")


def _total(grown: dict[str, list[int]]) -> int:
    return sum(map(sum, grown.values()))


def _raised(grown: dict[str, list[int]]) -> bool:
    return _total(grown) >= _READS // 2


def _effective(world: World, irq: str) -> set[int]:
    """Return the CPUs of a list like 0-3,6."""
    cpus: set[int] = set()
    for part in world.ask(f"cat /proc/irq/{irq}/effective_affinity_list").text.split(","):
        first, _, last = part.partition("-")
        cpus |= set(range(int(first), int(last or first) + 1))
    return cpus


def _arrived_at(grown: list[int], cpus: set[int]) -> bool:
    """Return whether interrupts came, and only to these CPUs."""
    return sum(grown) > 0 and {cpu for cpu, n in enumerate(grown) if n} <= cpus


def _timer(world: World) -> None:
    world.section("timer", "CPU 1で計算だけをする")
    world.say("入出力を何もしない1秒の間に、CPU 1に届くタイマー割り込みを数えます。")
    world.file("spin.py", _SPIN)
    command = "taskset -c 1 python3 spin.py"
    grown = _grown(world.do(f"python3 grew.py /proc/interrupts timer {command}"))
    ticks = sum(row[1] for row in grown.values())
    world.fact("timer-interrupts-a-busy-cpu", ticks >= 50, seen=f"CPU 1に+{ticks}")


def _hosts(world: World) -> tuple[Namespace, Namespace]:
    world.section("hosts", "2つの名前空間をケーブルでつなぐ")
    client, server = world.network.pair("client", "server")
    world.ask("ping -q -c 1 192.0.2.2", client)
    return client, server


def _processed(world: World) -> list[int]:
    """Return how many packets CPU 0 and CPU 1 have processed."""
    lines = world.ask("cat /proc/net/softnet_stat").lines
    return [int(line.split()[0], 16) for line in lines[:2]]


def _ping(world: World, client: Namespace, cpu: int) -> tuple[int, list[int]]:
    """Send packets from one CPU; return the soft interrupts and who processed the packets."""
    return _packets_of(world, client, f"taskset -c {cpu} ping -q -f -c {_PINGS} 192.0.2.2")


def _packets_of(world: World, client: Namespace, command: str) -> tuple[int, list[int]]:
    before = _processed(world)
    grown = _grown(world.do(f"python3 grew.py /proc/softirqs NET_RX {command}", client))
    after = _processed(world)
    return _total(grown), [new - old for old, new in zip(before, after, strict=True)]


def _who(processed: list[int]) -> str:
    return "、".join(f"CPU {cpu}が{n}個" for cpu, n in enumerate(processed)) + "処理した"


def _did(processed: list[int], cpu: int) -> bool:
    """Return whether this CPU, and not the other, processed the packets."""
    return processed[cpu] >= _PINGS > processed[1 - cpu]  # two packets a ping


def _packets(world: World, client: Namespace) -> None:
    world.section("packets", "パケットを受け取るCPU")
    world.say("パケットの処理は、割り込みの続きとして、ソフト割り込みの中で進みます。")
    world.say(f"CPU 0から{_PINGS}回、次にCPU 1から{_PINGS}回、serverにpingします。")
    softirqs, first = _ping(world, client, 0)
    world.fact("packets-raise-net-rx", _received(softirqs), seen=f"NET_RX +{softirqs}")
    _, second = _ping(world, client, 1)
    seen = f"{_who(first)}。次は{_who(second)}"
    world.fact("veth-receives-on-the-sending-cpu", _follows(first, second), seen=seen)


def _received(softirqs: int) -> bool:
    return softirqs >= _PINGS // 2


def _follows(first: list[int], second: list[int]) -> bool:
    return _did(first, 0) and _did(second, 1)


def _steer(world: World, server: Namespace) -> None:
    world.say("RPSは、受け取ったパケットの処理を、指定したCPUに任せる設定です。1はCPU 0だけです。")
    world.do("echo 1 > /sys/class/net/eth0/queues/rx-0/rps_cpus", server)


def _steering(world: World, client: Namespace, server: Namespace) -> None:
    world.section("rps", "RPSで受信処理を移す")
    _steer(world, server)
    _, processed = _ping(world, client, 1)
    world.say("CPU 1に残るNET_RXは、CPU 0に知らせるための分です。")
    world.fact("rps-moves-the-receiving", _did(processed, 0), seen=_who(processed))


def control(world: World) -> None:
    """Take the causes away: reads from the cache, no packets, RPS on and off."""
    _cached_reads(world)
    client, server = _hosts(world)
    _no_packets(world, client)
    _without_rps(world, client)
    _with_rps(world, client, server)


def _cached_reads(world: World) -> None:
    world.section("cached", "キャッシュにあるファイルを読む")
    world.file("grew.py", _GREW, unseen=True)
    grown = _read(world, "")
    why = "キャッシュにあれば、ディスクに頼まないので、割り込みも起きない"
    seen, holds = f"{_READS}回読み、割り込みは+{_total(grown)}", _raised(grown)
    world.control("disk-reads-raise-its-irq", holds, why=why, seen=seen)


def _no_packets(world: World, client: Namespace) -> None:
    world.section("no-packets", "パケットを送らない")
    softirqs, _ = _packets_of(world, client, "sleep 0.1")
    why = "パケットが届かなければ、NET_RXはほとんど増えない"
    seen = f"NET_RX +{softirqs}"
    world.control("packets-raise-net-rx", _received(softirqs), why=why, seen=seen)


def _without_rps(world: World, client: Namespace) -> None:
    world.section("without-rps", "RPSを設定せずに、CPU 1から送る")
    _, processed = _ping(world, client, 1)
    why, seen = "RPSがなければ、送ったCPU 1が処理する", _who(processed)
    world.control("rps-moves-the-receiving", _did(processed, 0), why=why, seen=seen)


def _with_rps(world: World, client: Namespace, server: Namespace) -> None:
    world.section("with-rps", "RPSを設定してから、CPU 0とCPU 1から送る")
    _steer(world, server)
    (_, first), (_, second) = _ping(world, client, 0), _ping(world, client, 1)
    why = "RPSがあれば、どちらから送ってもCPU 0が処理する"
    seen, holds = f"{_who(first)}。次は{_who(second)}", _follows(first, second)
    world.control("veth-receives-on-the-sending-cpu", holds, why=why, seen=seen)
