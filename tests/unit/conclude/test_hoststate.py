from __future__ import annotations

import datetime

from corral.api.v1alpha1 import host
from corral.conclude import hoststate
from corral_drivers import errors
from corral_drivers.hypervisor import model as hypervisor
from corral_drivers.image import model as image

NOW = datetime.datetime(2026, 1, 31, 12, 0, 0, tzinfo=datetime.UTC)
ASKED = hoststate.Asked(generation=2, host="h1", agent_version="0.1")
FACTS = hypervisor.Facts(cpus=4, memory=8 << 30, accelerator="kvm", hypervisor="QEMU", version="7.2.0")
HELD = image.Held("a" * 64, image.Format.QCOW2, "/i/a", 1, 2)
LOST = image.Image("b" * 64, "http://x.example/b", image.Format.RAW)


def found(**changes: object) -> hoststate.Found:
    values: dict[str, object] = {
        "facts": FACTS,
        "held": (HELD,),
        "unfinished": (),
        "orphans": {},
        "fault": None,
    }
    return hoststate.Found(**(values | changes))  # type: ignore[arg-type]


def conclude(what: hoststate.Found, before: host.HostStateStatus | None = None) -> host.HostStateStatus:
    return hoststate.conclude(what, ASKED, before or host.HostStateStatus(), NOW)


def test_a_machine_that_is_well() -> None:
    status = conclude(found())
    assert (status.observed_generation, status.capacity) == (2, host.Resources(cpu=4, memory="8Gi"))
    assert status.facts == host.Facts(hypervisor="QEMU 7.2.0", accelerator="kvm", agent_version="0.1")
    assert status.images == (host.HeldImage(sha256="a" * 64, held=True),)
    assert [(one.type, one.status) for one in status.conditions] == [("HypervisorReady", "True")]


def test_a_hypervisor_that_is_away_takes_nothing_from_what_was_told() -> None:
    before = conclude(found(orphans={"u": hoststate.Orphaned(frozenset({"tap", "disk"}))}))
    fault = errors.Unavailable(hypervisor.Cause.CONNECTION_LOST, "connect: no such socket")
    status = conclude(found(facts=None, held=None, orphans=None, fault=fault), before)
    assert (status.capacity, status.facts, status.images) == (before.capacity, before.facts, before.images)
    assert status.orphans == before.orphans == (host.Orphan(uid="u", kinds=("disk", "tap")),)
    assert status.orphan_count == before.orphan_count == 1
    (condition,) = status.conditions
    assert (condition.status, condition.reason) == ("False", "HypervisorUnavailable")
    assert condition.message.startswith("connect: no such socket.")


def test_images_that_are_not_here_say_why() -> None:
    error = errors.Unavailable(image.Cause.NOT_FOUND, "the server answers 404")
    (held, lost) = conclude(
        found(unfinished=((LOST, error), (image.Image("a" * 64, "x", image.Format.RAW), None)))
    ).images
    assert held.held
    assert lost == host.HeldImage(
        sha256="b" * 64, held=False, reason="ImageMissingAtSource", message="the server answers 404"
    )
    assert conclude(found(unfinished=((LOST, None),))).images[1].reason == "ImageFetching"


def test_of_too_many_images_those_that_are_missing_are_told() -> None:
    many = tuple(image.Held(f"{n:064x}", image.Format.RAW, "/i", 1, 1) for n in range(600))
    images = conclude(found(held=many, unfinished=((LOST, None),))).images
    assert len(images) == hoststate.LONGEST_LIST
    assert "b" * 64 in {one.sha256 for one in images}


def test_an_orphan_is_told_with_what_it_was_made_for() -> None:
    lost = hoststate.Orphaned(frozenset({"domain"}), "shop/web", 3, (("eth0", "10.7.0.5"), ("eth0", "fd00::5")))
    (orphan,) = conclude(found(orphans={"u": lost})).orphans
    assert (orphan.uid, orphan.name, orphan.epoch) == ("u", "shop/web", 3)
    assert [(one.interface, one.address) for one in orphan.addresses] == [("eth0", "10.7.0.5"), ("eth0", "fd00::5")]


def test_of_too_many_orphans_all_are_counted() -> None:
    status = conclude(found(orphans={f"{n:036d}": hoststate.Orphaned(frozenset({"disk"})) for n in range(600)}))
    assert (len(status.orphans), status.orphan_count) == (hoststate.LONGEST_LIST, 600)


def test_a_mark_that_says_anything_is_told_as_far_as_it_goes() -> None:
    strange = hoststate.Orphaned(frozenset({"domain"}), "n" * 300, -1)
    (orphan,) = conclude(found(orphans={"u" * 99: strange})).orphans
    assert (len(orphan.uid), len(orphan.name), orphan.epoch) == (64, 253, 0)


def test_other_marks_are_told_and_nothing_else_is_touched() -> None:
    before = conclude(found(orphans={"u": hoststate.Orphaned(frozenset({"disk"}))}))
    marks = host.Marks(cloud="c0", host="h0")
    status = hoststate.marked(marks, ASKED, before, NOW)
    assert (status.marks, status.orphans, status.capacity) == (marks, before.orphans, before.capacity)
    (condition,) = status.conditions
    assert (condition.status, condition.reason) == ("False", "MarksDiffer")
    assert conclude(found(), status).marks is None


def test_the_same_again_is_the_same() -> None:
    before = conclude(found())
    later = hoststate.conclude(found(), ASKED, before, NOW + datetime.timedelta(days=1))
    assert later == before
