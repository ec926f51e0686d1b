"""Network namespaces and the cables between them; every command that makes them is shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from labs.harness.problem import LabError

if TYPE_CHECKING:
    from labs.harness.lab import Address
    from labs.harness.process import Background
    from labs.harness.world import World

End = tuple["Namespace", str, str]
"""Where a cable ends: a namespace, the interface's name, and its address (or "")."""

_QUIET = (
    "net.ipv6.conf.all.disable_ipv6=1",
    "net.ipv6.conf.default.disable_ipv6=1",
    "net.ipv4.tcp_congestion_control=reno",
)


class Namespace:
    """A network namespace: one host of the experiment."""

    def __init__(self, world: World, name: str) -> None:
        """Make the namespace; without IPv6, and with a congestion control every kernel has."""
        self._world, self.name = world, name
        world.set_up(f"ip netns add {name}")
        world.ask(f"ip link set lo up; sysctl -qw {' '.join(_QUIET)}", on=self)

    @property
    def prefix(self) -> list[str]:
        """Return what to put before a command to run it here."""
        return ["ip", "netns", "exec", self.name]

    def address(self, interface: str, address: str) -> None:
        """Put an address on an interface."""
        self._world.network.addresses.append((self.name, interface, address))
        self._world.set_up(f"ip -n {self.name} addr add {address} dev {interface}")

    def up(self, interface: str) -> None:
        """Bring an interface up."""
        self._world.set_up(f"ip -n {self.name} link set {interface} up")

    def route(self, to: str, via: str) -> None:
        """Add a route; `to` may be "default"."""
        self._world.set_up(f"ip -n {self.name} route add {to} via {via}")

    def sysctl(self, *settings: str) -> None:
        """Set kernel parameters of this namespace, like `net.ipv4.ip_forward=1`."""
        self._world.do(f"sysctl -qw {' '.join(settings)}", on=self)

    def capture(self, interface: str, what: str = "", options: str = "-nn -S -t") -> Background:
        """Start tcpdump and return once it listens; `stop` it after the last packet came."""
        command = f"tcpdump --immediate-mode -l -s 2048 {options} -i {interface} {what}".rstrip()
        background = self._world.start(command, on=self)
        background.wait_for("listening on")
        return background


class Network:
    """The namespaces of one lab and the cables between them."""

    def __init__(self, world: World) -> None:
        """Begin without any namespace."""
        self._world = world
        self.addresses: list[Address] = []

    def check(self, topology: Iterable[Address]) -> None:
        """Compare with what the lab announced.

        Raises:
            LabError: when an address was given that the lab does not announce.

        """
        if extra := sorted(set(self.addresses) - set(topology)):
            raise LabError(f"LABのtopologyにないアドレスがあります: {extra}")

    def namespace(self, name: str) -> Namespace:
        """Make a namespace."""
        return Namespace(self._world, name)

    def router(self, name: str) -> Namespace:
        """Make a namespace that forwards packets."""
        namespace = self.namespace(name)
        namespace.sysctl("net.ipv4.ip_forward=1")
        return namespace

    def cable(self, one: End, other: End, mtu: int = 0) -> None:
        """Connect two namespaces with a veth pair, put the addresses on it, bring it up."""
        (a, a_name, _), (b, b_name, _) = one, other
        size = f" mtu {mtu}" if mtu else ""
        self._world.set_up(
            f"ip link add {a_name}{size} netns {a.name} type veth"
            f" peer name {b_name}{size} netns {b.name}"
        )
        for namespace, name, address in (one, other):
            if address:
                namespace.address(name, address)
            namespace.up(name)

    def pair(self, one: str, other: str, mtu: int = 0) -> tuple[Namespace, Namespace]:
        """Make two namespaces, 192.0.2.1 and 192.0.2.2, with a cable from eth0 to eth0."""
        a, b = self.namespace(one), self.namespace(other)
        self.cable((a, "eth0", "192.0.2.1/24"), (b, "eth0", "192.0.2.2/24"), mtu)
        return a, b

    def bridge(self, host: Namespace, name: str, *ports: str, options: str = "") -> None:
        """Join interfaces of a namespace in a bridge; options are those of its type."""
        kind = f"type bridge {options}".rstrip()
        self._world.set_up(f"ip -n {host.name} link add {name} {kind}")
        for port in ports:
            self._world.set_up(f"ip -n {host.name} link set {port} master {name}")
        host.up(name)
