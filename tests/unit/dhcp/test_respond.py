"""What is said to a guest, whatever it asks: laws, and the packets as golden files.

The writers and readers here of clients' messages are the test's own; real clients are in `tests/contract`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import pathlib
import struct

import hypothesis
import pytest
from hypothesis import strategies as st

from corral_drivers.dhcp import advertise, dhcp4, dhcp6, domains, frames, respond
from corral_drivers.dhcp.model import Answer, Gateway

GOLDEN = pathlib.Path(__file__).parent / "golden"
MAC, ADDRESS = "02:00:00:00:00:01", "10.77.0.5"
GUEST = bytes.fromhex("020000000001")
GATEWAY = Gateway(ipaddress.IPv4Address("169.254.1.1"), ipaddress.IPv6Address("fe80::1"), b"\xee" * 6)
SERVERS = ("10.0.0.53", "fd00::53")
SAID = Answer("tap0", MAC, 1420, (ADDRESS, "fd77::5"), True, "web-0", SERVERS, ("a.example.org", "example.org"))
INSIDE = dataclasses.replace(SAID, leads_out=False, dns_servers=(), search_domains=())
UNTIMED = hypothesis.settings(deadline=None)
"""The machine may do other things too."""

LARGEST = 1280 + 14
"""Octets of a frame that every link takes."""

V4 = frames.Header(GUEST, b"\xff" * 6, ipaddress.IPv4Address("0.0.0.0"), ipaddress.IPv4Address("255.255.255.255"))
V6 = frames.Header(GUEST, b"\x33\x33" + bytes(4), ipaddress.IPv6Address("fe80::2"), dhcp6.SERVERS)
ROUTERS = dataclasses.replace(V6, destination=ipaddress.IPv6Address("ff02::2"))
MAC_OPTION = b"\x01\x01" + GUEST
LEGAL = "abcdefghijklmnopqrstuvwxyz0123456789-"

NAMES = st.lists(st.text(LEGAL, min_size=1, max_size=63), min_size=1, max_size=3).map(".".join)
ANSWERS = st.builds(
    Answer,
    interface=st.just("tap0"),
    mac=st.just(MAC),
    mtu=st.integers(1280, 9216),
    addresses=st.lists(st.ip_addresses().map(str), max_size=8).map(tuple),
    leads_out=st.booleans(),
    hostname=st.text(LEGAL, min_size=1, max_size=63),
    dns_servers=st.lists(st.ip_addresses().map(str), max_size=8).map(tuple),
    search_domains=st.lists(NAMES, max_size=8).map(tuple),
)


def option4(number: int, value: bytes) -> bytes:
    return bytes([number, len(value)]) + value


def asks4(kind: int, options: bytes = b"", *, has: bytes = bytes(4), flags: int = 0, relay: bytes = bytes(4)) -> bytes:
    fixed = struct.pack("!BBBBIHH", 1, 1, 6, 0, 7, 0, flags) + has + bytes(8) + relay + GUEST + bytes(10 + 192)
    return fixed + b"\x63\x82\x53\x63" + option4(53, bytes([kind])) + options + b"\xff"


def option6(number: int, value: bytes) -> bytes:
    return struct.pack("!HH", number, len(value)) + value


def asks6(kind: int, *options: bytes, identity: bytes | None = b"\0\x03\0\x01" + GUEST) -> bytes:
    client = b"" if identity is None else option6(1, identity)
    return bytes([kind, 0, 0, 7]) + client + b"".join(options)


def association(*addresses: str) -> bytes:
    held = (option6(5, ipaddress.IPv6Address(address).packed + bytes(8)) for address in addresses)
    return option6(3, b"\0\0\0\x01" + bytes(8) + b"".join(held))


US6 = option6(2, dhcp6.identity(GATEWAY))
FRAMES = [
    frames.udp(V4, (68, 67), asks4(1)),
    frames.udp(V4, (68, 67), asks4(3, option4(50, b"\x0a\x4d\x00\x05") + option4(61, b"\x01" + GUEST))),
    frames.udp(V6, (546, 547), asks6(1, association("fd77::9"), option6(14, b""))),
    frames.udp(V6, (546, 547), asks6(5, US6, association("fd77::9"), option6(25, bytes(12)), option6(4, bytes(4)))),
    frames.icmpv6(ROUTERS, 133, bytes(4) + MAC_OPTION),
]


def read4(message: bytes | None) -> tuple[int, str, dict[int, bytes]]:
    """A server's message: its type, the address that it gives, its options."""
    assert message is not None
    found: dict[int, bytes] = {}
    at = 240
    while message[at] != 255:
        length = message[at + 1]
        found[message[at]] = found.get(message[at], b"") + message[at + 2 : at + 2 + length]
        at += 2 + length
    return found[53][0], str(ipaddress.IPv4Address(message[16:20])), found


def read6(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        number, length = struct.unpack_from("!HH", data)
        found.append((number, data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def told4(data: bytes, said: Answer = SAID) -> tuple[int, str, dict[int, bytes]] | None:
    reply = dhcp4.answer(said, GATEWAY, data)
    return None if reply is None else read4(reply.message)


@pytest.mark.parametrize(("name", "said"), [("out", SAID), ("inside", INSIDE)])
def test_the_packets_are_the_golden_ones(name: str, said: Answer) -> None:
    lines = []
    for frame in FRAMES:
        answer = respond.respond(said, GATEWAY, frame)
        assert answer is not None
        lines += [frame.hex(" ", -32), "->", answer.hex(" ", -32), ""]
    text, golden = "\n".join(lines), GOLDEN / f"{name}.txt"
    if os.environ.get("CORRAL_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


@UNTIMED
@hypothesis.given(said=ANSWERS, frame=st.binary(max_size=600))
def test_whatever_comes_in_nothing_is_raised(said: Answer, frame: bytes) -> None:
    for head in (b"", b"\xff" * 6 + GUEST + b"\x08\x00", b"\xff" * 6 + GUEST + b"\x86\xdd"):
        assert respond.respond(said, GATEWAY, head + frame) is None


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(said=ANSWERS, whole=st.sampled_from(FRAMES), data=st.data())
def test_what_is_changed_on_its_way_is_answered_to_the_guest_alone_or_not_at_all(
    said: Answer, whole: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(whole)))
    junk = data.draw(st.binary(max_size=40))
    frame = whole[:at] + junk + whole[at + data.draw(st.sampled_from([0, len(junk)])) :]
    for changed in (frame, frame[:at], frame + junk * 60):
        answer = respond.respond(said, GATEWAY, changed)
        if answer is not None:
            assert changed[6:12] == GUEST
            assert answer[:6] in (GUEST, b"\xff" * 6)
            assert answer[6:12] == GATEWAY.mac
            assert len(answer) <= LARGEST + 220


@UNTIMED
@hypothesis.given(said=ANSWERS, body=st.binary(max_size=400))
def test_any_body_of_dhcp_dhcpv6_and_a_solicitation_is_bounded_work(said: Answer, body: bytes) -> None:
    cookie = asks4(1)[:240]
    for frame in (
        frames.udp(V4, (68, 67), cookie + body),
        frames.udp(V6, (546, 547), asks6(1, body)),
        frames.udp(V6, (546, 547), asks6(5, US6, body)),
        frames.icmpv6(ROUTERS, 133, body),
    ):
        answer = respond.respond(said, GATEWAY, frame)
        assert answer is None or len(answer) <= 1514


@UNTIMED
@hypothesis.given(said=ANSWERS)
def test_the_whole_of_an_answer_fits_every_link(said: Answer) -> None:
    for frame in FRAMES:
        answer = respond.respond(said, GATEWAY, frame)
        assert answer is None or len(answer) <= LARGEST


@UNTIMED
@hypothesis.given(said=ANSWERS)
def test_what_is_written_reads_back(said: Answer) -> None:
    told = told4(asks4(1), said)
    assert (told is None) == (said.ipv4 is None)
    if told:
        kind, address, options = told
        assert (kind, address) == (2, str(said.ipv4))
        assert options[1] == b"\xff" * 4
        assert options[51] == b"\xff" * 4
        assert int.from_bytes(options[26], "big") == said.mtu
        assert options[12].decode() == said.hostname
        assert (3 in options) == (121 in options) == said.leads_out
    message = dhcp6.answer(said, GATEWAY, asks6(1, association()))
    assert (message is None) == (not said.ipv6)
    if message:
        (given,) = (value for number, value in read6(message[4:]) if number == 3)
        addresses = [ipaddress.IPv6Address(value[:16]) for _, value in read6(given[12:])]
        assert addresses == list(said.ipv6)
        assert all(value[16:] == b"\xff" * 8 for _, value in read6(given[12:]))


@UNTIMED
@hypothesis.given(data=st.binary(max_size=300), kind=st.sampled_from(["udp", "icmpv6"]))
def test_a_frame_reads_back_and_its_sums_are_right(data: bytes, kind: str) -> None:
    for header in (V4, V6) if kind == "udp" else (V6,):
        frame = frames.udp(header, (68, 67), data) if kind == "udp" else frames.icmpv6(header, 133, data)
        question = frames.parse(frame)
        assert question is not None
        assert (question.mac, question.port) == (GUEST, 67 if kind == "udp" else 0)
        assert question.body == data if kind == "udp" else question.body[4:] == data
        payload = frame[34:] if header is V4 else frame[54:]
        protocol = 17 if kind == "udp" else 58
        pseudo = header.source.packed + header.destination.packed + struct.pack("!II", len(payload), protocol)
        assert _sum(pseudo + payload) == 0xFFFF
        assert header is V6 or _sum(frame[14:34]) == 0xFFFF


def _sum(data: bytes) -> int:
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    return sum(words) % 0xFFFF or 0xFFFF


@UNTIMED
@hypothesis.given(said=ANSWERS)
def test_an_advertisement_is_of_whole_options_and_never_of_a_prefix(said: Answer) -> None:
    body = advertise.advertisement(said, GATEWAY)
    assert body[1] & 0x80
    assert int.from_bytes(body[2:4], "big") == (0xFFFF if said.leads_out else 0)
    kinds, at = [], 12
    while at < len(body):
        assert body[at + 1] > 0
        kinds.append(body[at])
        at += body[at + 1] * 8
    assert at == len(body)
    assert 3 not in kinds
    assert (24 in kinds) == said.leads_out


OURS, THEIRS = b"\x0a\x4d\x00\x05", b"\xc0\x00\x02\x09"
US, THEM = option4(54, GATEWAY.ipv4.packed), option4(54, b"\xc0\x00\x02\x01")


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        (asks4(1), 2),
        (asks4(1, option4(80, b"")), 5),
        (asks4(3, US + option4(50, OURS)), 5),
        (asks4(3, US + option4(50, THEIRS)), 6),
        (asks4(3, THEM + option4(50, OURS)), None),
        (asks4(3, option4(50, OURS)), 5),
        (asks4(3, option4(50, THEIRS)), 6),
        (asks4(3, has=OURS), 5),
        (asks4(3, has=THEIRS), 6),
        (asks4(3), 6),
        (asks4(8, has=OURS), 5),
        (asks4(8), None),
        (asks4(4), None),
        (asks4(7, has=OURS), None),
        (asks4(2), None),
        (asks4(1, relay=THEIRS), None),
    ],
)
def test_dhcp_in_every_state_of_a_client(asked: bytes, kind: int | None) -> None:
    told = told4(asked)
    assert (None if told is None else told[0]) == kind
    if told and kind == 6:
        assert told[1] == "0.0.0.0"
        assert told[2].keys() == {53, 54}
    if told and asked == asks4(8, has=OURS):
        assert told[1] == "0.0.0.0"
        assert 51 not in told[2]


def test_where_an_answer_of_dhcp_goes() -> None:
    def destination(asked: bytes) -> str:
        reply = dhcp4.answer(SAID, GATEWAY, asked)
        assert reply is not None
        return str(reply.destination)

    assert destination(asks4(1)) == ADDRESS
    assert destination(asks4(1, flags=0x8000)) == "255.255.255.255"
    assert destination(asks4(3, has=OURS, flags=0x8000)) == ADDRESS
    assert destination(asks4(3, has=THEIRS)) == "255.255.255.255"


def test_a_small_message_leaves_out_what_weighs_least() -> None:
    many = dataclasses.replace(SAID, search_domains=tuple(f"{letter * 60}.example.org" for letter in "abcdefgh"))
    small, large = told4(asks4(1), many), told4(asks4(1, option4(57, b"\x05\xdc")), many)
    assert small
    assert large
    assert large[2][119] == b"".join(domains.encode(name) for name in many.search_domains)
    assert len(small[2][119]) < len(large[2][119])
    assert large[2][119].startswith(small[2][119])
    assert small[2].keys() == large[2].keys()


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        (asks6(1, association()), 2),
        (asks6(1, option6(14, b""), association()), 7),
        (asks6(1, US6, association()), None),
        (asks6(3, US6, association()), 7),
        (asks6(3, option6(2, b"\0\x03\0\x01" + GUEST), association()), None),
        (asks6(3, association()), None),
        (asks6(4, association("fd77::5")), 7),
        (asks6(4), None),
        (asks6(5, US6, association("fd77::5")), 7),
        (asks6(6, association("fd77::5")), 7),
        (asks6(8, US6, association("fd77::5")), 7),
        (asks6(9, US6, association("fd77::5")), 7),
        (asks6(11, identity=None), 7),
        (asks6(11, US6), 7),
        (asks6(1, association(), identity=None), None),
        (asks6(1, association(), identity=bytes(131)), None),
        (asks6(2, association()), None),
        (asks6(7, association()), None),
        (asks6(12, association()), None),
    ],
)
def test_dhcpv6_of_every_message(asked: bytes, kind: int | None) -> None:
    message = dhcp6.answer(SAID, GATEWAY, asked)
    assert (None if message is None else message[0]) == kind


def statuses(*options: bytes, kind: int = 4) -> list[int]:
    message = dhcp6.answer(SAID, GATEWAY, asks6(kind, *options))
    assert message is not None
    return [int.from_bytes(value[:2], "big") for number, value in read6(message[4:]) if number == 13]


def test_who_comes_from_another_network_is_told_so() -> None:
    assert statuses(association("fd77::5")) == [0]
    assert statuses(association("fd88::5")) == [4]
    message = dhcp6.answer(SAID, GATEWAY, asks6(5, US6, association("fd88::5", "fd77::5")))
    assert message is not None
    (held,) = (value for number, value in read6(message[4:]) if number == 3)
    lifetimes = {str(ipaddress.IPv6Address(value[:16])): value[16:] for _, value in read6(held[12:])}
    assert lifetimes == {"fd77::5": b"\xff" * 8, "fd88::5": bytes(8)}


def test_an_address_is_in_one_association_and_nothing_is_delegated() -> None:
    message = dhcp6.answer(SAID, GATEWAY, asks6(1, association(), association(), option6(25, bytes(12))))
    assert message is not None
    first, second, delegated = (value for number, value in read6(message[4:]) if number in (3, 25))
    assert [number for number, _ in read6(first[12:])] == [5]
    assert read6(second[12:]) == [(13, b"\0\x02")]
    assert read6(delegated[12:]) == [(13, b"\0\x06")]


def test_a_guest_without_ipv6_is_not_told_of_any_and_without_ipv4_neither() -> None:
    only = dataclasses.replace(SAID, addresses=(ADDRESS,))
    assert [respond.respond(only, GATEWAY, frame) is None for frame in FRAMES] == [False, False, True, True, True]
    assert respond.advertisement(only, GATEWAY) is None
    only = dataclasses.replace(SAID, addresses=("fd77::5",))
    assert [respond.respond(only, GATEWAY, frame) is None for frame in FRAMES] == [True, True, False, False, False]


def test_a_question_that_came_over_a_router_or_from_outside_has_no_answer() -> None:
    solicitation = FRAMES[4]
    assert respond.respond(SAID, GATEWAY, solicitation[:21] + b"\x40" + solicitation[22:]) is None
    outside = dataclasses.replace(V6, source=ipaddress.IPv6Address("fd77::5"))
    assert respond.respond(SAID, GATEWAY, frames.udp(outside, (546, 547), asks6(1, association()))) is None
    by_name = dataclasses.replace(V6, destination=GATEWAY.ipv6)
    assert respond.respond(SAID, GATEWAY, frames.udp(by_name, (546, 547), asks6(1, association()))) is None
    # Without an address yet, a guest is answered by all on its link.
    nobody = dataclasses.replace(ROUTERS, source=ipaddress.IPv6Address("::"))
    answer = respond.respond(SAID, GATEWAY, frames.icmpv6(nobody, 133, bytes(4)))
    assert answer == respond.advertisement(SAID, GATEWAY)
