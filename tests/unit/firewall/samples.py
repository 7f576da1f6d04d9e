"""A host with something of everything, for golden files."""

from __future__ import annotations

from corral_drivers.firewall import port
from corral_drivers.firewall.model import Floating, Group, Network, Rule, Service, Shared, Tap

SETTINGS = port.Settings("0b0e4c3a-6f0e-4d5b-9a51-0123456789ab", "5d1f8a52-0000-4d5b-9a51-0123456789ab")
SHARED = Shared(
    networks=(
        Network("n-1", ("10.77.0.5", "10.77.1.9", "fd77::5"), ("n-2",)),
        Network("n-2", ("10.77.0.7",), ("n-1",)),
    ),
    groups=(
        Group("g-1", ("10.77.0.5",), (Rule(protocol=6, ports=(80, 80)), Rule("10.0.0.0/8"), Rule(group="g-1"))),
        Group("g-2", (), (Rule("::/0", protocol=58, kind=128),), egress=(Rule("192.0.2.0/24", protocol=17),)),
    ),
    prefixes=("10.77.0.0/17", "10.77.128.0/17", "fd77::/64"),
    direct=("203.0.113.0/24",),
    off_limits=("100.87.0.0/24", "fd87::/64"),
    floating=(Floating("198.51.100.5", "10.77.0.5"),),
    services=(Service(17, 53),),
)
TAPS = (
    Tap(
        "ct0123456789ab",
        "8f5e2d1c-6f0e-4d5b-9a51-0123456789ab",
        "02:00:00:00:00:05",
        ("10.77.0.5", "fd77::5"),
        network="n-1",
        groups=("g-1",),
        nat=("100.87.0.1", "fd87::1"),
    ),
    Tap("ctfedcba987654", "8f5e2d1c-0000-4d5b-9a51-0123456789ab", "02:00:00:00:00:07", ("10.77.0.7",), "n-2", ("g-2",)),
    Tap("ct00000000000c", "8f5e2d1c-1111-4d5b-9a51-0123456789ab", "02:00:00:00:00:0c", ("10.78.0.12",)),
)
