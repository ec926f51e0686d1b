"""What a lab asks of the machine, probed by trying it, each with its cure."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

_LIMIT = 20


@dataclass(frozen=True)
class Need:
    """Something that is there when `probe`, a shell command run in the sandbox, succeeds."""

    name: str
    probe: str
    cure: str
    package: str = ""

    def met(self) -> bool:
        """Return whether the probe succeeds."""
        command = ["bash", "-c", self.probe]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_LIMIT)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


def program(name: str, package: str = "") -> Need:
    """Need a program; `package` is its Debian package where the name differs."""
    package = package or name
    return Need(name, f"command -v {name}", f"sudo apt-get install -y {package}", package)


def python_module(name: str, package: str) -> Need:
    """Need a module of the machine's own Python, from a Debian package."""
    cure = f"sudo apt-get install -y {package}"
    return Need(f"Pythonの{name}", f"python3 -c 'import {name}'", cure, package)


def trial(name: str, probe: str, cure: str, package: str = "") -> Need:
    """Need whatever makes a shell command succeed."""
    return Need(name, probe, cure, package)


_IN = "ip netns exec labneed"
_NETNS = "ip netns add labneed && trap 'ip netns del labneed' EXIT &&"
_FEATURES = {
    "network-namespace": (
        "ネットワーク名前空間とveth",
        f"{_NETNS} ip -n labneed link add need0 type veth peer name need1",
        "ネットワーク名前空間とvethを使えるカーネルの上で動かしてください"
        "（コンテナの中なら docker run --privileged）",
    ),
    "bridge": (
        "ブリッジ",
        f"{_NETNS} ip -n labneed link add need0 type bridge",
        "sudo modprobe bridge",
    ),
    "bridge-vlan-filtering": (
        "VLANを分けるブリッジ",
        f"{_NETNS} ip -n labneed link add need0 type bridge vlan_filtering 1 && "
        "bridge -n labneed vlan add dev need0 vid 10 self",
        "CONFIG_BRIDGE_VLAN_FILTERINGのあるカーネルの上で動かしてください",
    ),
    "nftables": (
        "nftablesのフィルター",
        f"{_NETNS} {_IN} nft add table inet t && "
        f"{_IN} nft add chain inet t c '{{ type filter hook input priority 0; }}'",
        "sudo modprobe nf_tables",
    ),
    "nft-conntrack": (
        "nftablesのct",
        f"{_NETNS} {_IN} nft add table inet t && {_IN} nft add chain inet t c && "
        f"{_IN} nft add rule inet t c ct state established accept",
        "sudo modprobe nf_conntrack",
    ),
    "nft-nat": (
        "nftablesのnat",
        f"{_NETNS} {_IN} nft add table ip t && "
        f"{_IN} nft add chain ip t c '{{ type nat hook postrouting priority 100; }}' && "
        f"{_IN} nft add rule ip t c masquerade",
        "sudo modprobe nft_masq",
    ),
    "strace": (
        "straceでの追跡",
        "strace -o /dev/null true",
        "ptraceを許してください（コンテナの中なら docker run --cap-add SYS_PTRACE）",
    ),
}


def feature(name: str) -> Need:
    """Need a feature of the kernel, by one of the names above."""
    return Need(*_FEATURES[name])


def packages(needs: Iterable[Need]) -> list[str]:
    """Return the Debian packages that satisfy the needs."""
    return sorted({need.package for need in needs if need.package})
