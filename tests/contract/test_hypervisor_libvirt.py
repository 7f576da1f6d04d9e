"""What only the real libvirt can show: the law of rendering, its errors, hand-made edits, the loss of its daemon."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import AsyncIterator, Iterator

import hypothesis
import libvirt
import pytest
from hypothesis import strategies as st

from corral_drivers import errors
from corral_drivers.hypervisor import plan, port
from corral_drivers.hypervisor.libvirt_qemu import driver as libvirt_driver
from corral_drivers.hypervisor.libvirt_qemu import parse, render
from corral_drivers.hypervisor.model import Cause, Desired, DirectBoot, Domain, Power, State, Uefi
from corral_lab.host import libvirtd, namespace

from ..unit.hypervisor import strategies
from . import hypervisor_fixtures

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[namespace.Host]:
    with hypervisor_fixtures.lab_host(tmp_path_factory.mktemp("hv")) as made:
        yield made


@pytest.fixture
def rig(host: namespace.Host) -> Iterator[hypervisor_fixtures.LibvirtRig]:
    made = hypervisor_fixtures.LibvirtRig(host)
    yield made
    libvirtd.start(host)
    made.close()


@pytest.fixture
async def driver(rig: hypervisor_fixtures.LibvirtRig) -> AsyncIterator[libvirt_driver.LibvirtQemu]:
    made = libvirt_driver.LibvirtQemu(rig.settings())
    yield made
    await made.close()


@pytest.fixture
def accelerators(rig: hypervisor_fixtures.LibvirtRig) -> tuple[str, ...]:
    """What libvirt accepts a definition for, which is not yet what runs."""
    with contextlib.suppress(libvirt.libvirtError):
        rig.link.getDomainCapabilities(arch="x86_64", virttype="kvm")
        return ("tcg", "kvm")
    return ("tcg",)


@hypothesis.settings(
    max_examples=60, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(data=st.data())
def test_what_libvirt_stores_parses_to_what_was_rendered(
    rig: hypervisor_fixtures.LibvirtRig, accelerators: tuple[str, ...], data: st.DataObject
) -> None:
    domain = data.draw(strategies.domains(accelerators))
    defined = rig.link.defineXML(render.render(domain))
    try:
        kept = parse.read(defined.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        assert kept.deviation() == ""
        assert kept.stored() == kept.domain == plan.pinned(domain, kept.domain)
    finally:
        # Not its UEFI variables: the path is anything.
        defined.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("<vcpu placement='static'>1<", "<vcpu placement='static'>2<"),
        ("slot='0x05'", "slot='0x09'"),
        ("<apic/>", ""),
        ("<acpi/>", ""),
        ("mode='maximum'", "mode='custom'"),
        ("cache='none'", "cache='unsafe'"),
        ("<on_reboot>restart", "<on_reboot>destroy"),
        ("/dev/urandom", "/dev/random"),
        ("<memballoon model='none'/>", "<memballoon model='virtio'/>"),
        ("epoch='1'", "epoch='one'"),
        ("epoch='1'", ""),
        ("</devices>", "<graphics type='vnc'/></devices>"),
        ("</devices>", "<disk type='block' device='cdrom'><target dev='sda' bus='sata'/></disk></devices>"),
        ("</devices>", "<interface type='user'/></devices>"),
        ("managed='no'", "managed='yes'"),
    ],
)
async def test_a_hand_made_edit_is_seen_and_undone(
    rig: hypervisor_fixtures.LibvirtRig, driver: libvirt_driver.LibvirtQemu, written: str, instead: str
) -> None:
    domain = rig.domain("edited")
    document = render.render(domain)
    assert written in document
    rig.link.defineXML(document.replace(written, instead))
    observed = await driver.observe(domain.uuid)
    assert observed is not None
    assert observed.persistent != plan.pinned(domain, observed.persistent)
    await driver.apply(plan.Define(domain))
    observed = await driver.observe(domain.uuid)
    assert observed is not None
    assert observed.persistent == plan.pinned(domain, observed.persistent)


async def test_a_definition_that_is_put_back_keeps_its_machine(
    rig: hypervisor_fixtures.LibvirtRig, driver: libvirt_driver.LibvirtQemu
) -> None:
    domain = rig.domain("aged")
    document = render.render(dataclasses.replace(domain, machine="pc-i440fx-6.2"))
    # As a Corral wrote it that gave guests less, when this was the newest machine.
    rig.link.defineXML(document.replace("<acpi/>", ""))
    observed = await driver.observe(domain.uuid)
    assert observed is not None
    assert observed.persistent is None
    (step,) = plan.plan(Desired(domain, Power.STOPPED, 1.0), observed).steps
    await driver.apply(step)
    observed = await driver.observe(domain.uuid)
    assert observed is not None
    assert observed.persistent == dataclasses.replace(domain, machine="pc-i440fx-6.2")


async def start(driver: libvirt_driver.LibvirtQemu, domain: Domain) -> None:
    await driver.apply(plan.Define(domain))
    await driver.apply(plan.Start(domain.uuid))


@pytest.mark.parametrize("machine", ["pc", "q35"])
async def test_a_uefi_guest_has_variables_of_its_own_until_it_is_forgotten(
    rig: hypervisor_fixtures.LibvirtRig, driver: libvirt_driver.LibvirtQemu, machine: str
) -> None:
    found = (await driver.facts()).uefi
    if found is None:
        pytest.skip("no UEFI firmware is installed here: the package is ovmf")
    variables = rig.host.folder / f"{machine}.fd"
    domain = dataclasses.replace(rig.domain(machine), machine=machine, uefi=Uefi(found, str(variables)))
    await start(driver, domain)
    template = pathlib.Path(found.template)
    assert variables.stat().st_size == template.stat().st_size
    observed = await driver.observe(domain.uuid)
    assert observed is not None
    assert observed.state is State.RUNNING
    assert observed.persistent == observed.active == plan.pinned(domain, observed.persistent)
    await driver.apply(plan.PowerOff(domain.uuid))
    assert variables.exists()
    await driver.apply(plan.Undefine(domain.uuid))
    assert not variables.exists()
    assert template.exists()


async def test_what_a_guest_lacks_has_a_cause(
    rig: hypervisor_fixtures.LibvirtRig, driver: libvirt_driver.LibvirtQemu
) -> None:
    domain = rig.domain("lacking")
    disk, interface = domain.disks[0], domain.interfaces[0]
    gone = str(rig.host.folder / "gone")
    boot = DirectBoot(gone, "", "")
    table: list[tuple[Domain, type[errors.DriverError], Cause]] = [
        (
            dataclasses.replace(domain, disks=(dataclasses.replace(disk, path=gone),)),
            errors.NotReady,
            Cause.DEVICE_MISSING,
        ),
        (
            dataclasses.replace(domain, interfaces=(dataclasses.replace(interface, tap="hvgone"),)),
            errors.NotReady,
            Cause.DEVICE_MISSING,
        ),
        (dataclasses.replace(domain, boot=boot), errors.NotReady, Cause.DEVICE_MISSING),
        (dataclasses.replace(domain, machine="pc-i440fx-99.9"), errors.Rejected, Cause.UNSUPPORTED),
        (dataclasses.replace(domain, cpus=5000), errors.Rejected, Cause.UNSUPPORTED),
        (dataclasses.replace(domain, memory=1 << 50), errors.Unavailable, Cause.NO_MEMORY),
    ]
    for faulty, word, cause in table:
        with pytest.raises(errors.DriverError) as raised:
            await start(driver, faulty)
        assert (type(raised.value), raised.value.cause) == (word, cause), raised.value.message
        doing = raised.value.message.split(":")[0]
        assert doing in (f"start {domain.uuid} (domain {domain.name})", f"define {domain.name}")
    await start(driver, domain)


async def test_a_disk_in_use_is_busy(rig: hypervisor_fixtures.LibvirtRig, driver: libvirt_driver.LibvirtQemu) -> None:
    holder, second = rig.domain("holder"), rig.domain("second")
    await start(driver, holder)
    with pytest.raises(errors.Unavailable) as raised:
        await start(driver, dataclasses.replace(second, disks=holder.disks))
    assert raised.value.cause is Cause.DEVICE_BUSY


async def test_a_nic_that_the_guest_does_not_let_go_of_is_busy_and_stays(
    rig: hypervisor_fixtures.LibvirtRig, driver: libvirt_driver.LibvirtQemu
) -> None:
    # Nothing boots here, so nobody answers the request to let go; `tests/lab` has guests that do.
    domain = rig.domain("clinging")
    await start(driver, domain)
    with pytest.raises(errors.Unavailable, match="does not let go") as raised:
        await driver.apply(plan.Replug(domain.uuid, domain.interfaces[0].tap))
    assert raised.value.cause is Cause.DEVICE_BUSY
    observed = await driver.observe(domain.uuid)
    assert observed is not None
    assert (observed.active, observed.state) == (observed.persistent, State.RUNNING)


async def test_the_console_is_logged(rig: hypervisor_fixtures.LibvirtRig, driver: libvirt_driver.LibvirtQemu) -> None:
    domain = rig.domain("talking")
    await start(driver, domain)
    assert domain.console_log in map(str, rig.host.folder.iterdir())


async def test_the_daemon_may_come_and_go(
    rig: hypervisor_fixtures.LibvirtRig, driver: libvirt_driver.LibvirtQemu
) -> None:
    domain, idle = rig.domain("surviving"), rig.domain("idle")
    heard: list[str] = []
    driver.watch(heard.append)
    await start(driver, domain)
    await driver.apply(plan.Define(idle))
    before = await driver.observe(domain.uuid)
    libvirtd.stop(rig.host)
    await hypervisor_fixtures.eventually(lambda: port.ITSELF in heard)
    with pytest.raises(errors.Unavailable) as raised:
        await driver.observe(domain.uuid)
    assert raised.value.cause is Cause.CONNECTION_LOST
    assert domain.uuid in raised.value.message
    heard.clear()

    libvirtd.start(rig.host)
    await hypervisor_fixtures.eventually(lambda: {domain.uuid, idle.uuid, port.ITSELF} <= set(heard))
    assert await driver.observe(domain.uuid) == before
    heard.clear()
    await driver.apply(plan.PowerOff(domain.uuid))
    await hypervisor_fixtures.eventually(lambda: domain.uuid in heard)
    after = await driver.observe(domain.uuid)
    assert after is not None
    assert after.state is State.SHUT_OFF


async def test_a_daemon_that_is_not_there_at_first(rig: hypervisor_fixtures.LibvirtRig) -> None:
    domain = rig.domain("early")
    rig.plant(domain, mark=domain.mark)
    libvirtd.stop(rig.host)
    early = libvirt_driver.LibvirtQemu(rig.settings())
    try:
        heard: list[str] = []
        early.watch(heard.append)
        with pytest.raises(errors.Unavailable):
            await early.observe_all()
        libvirtd.start(rig.host)
        await hypervisor_fixtures.eventually(lambda: domain.uuid in heard)
    finally:
        await early.close()


async def test_a_living_guest_with_a_hand_attached_disk(
    rig: hypervisor_fixtures.LibvirtRig, driver: libvirt_driver.LibvirtQemu
) -> None:
    domain = rig.domain("attached")
    await start(driver, domain)
    spare = rig.domain("spare").disks[0].path
    disk = f"<disk type='file'><driver name='qemu'/><source file='{spare}'/><target dev='vdz' bus='virtio'/></disk>"
    rig.link.lookupByUUIDString(domain.uuid).attachDeviceFlags(disk, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    observed = await driver.observe(domain.uuid)
    assert observed is not None
    assert observed.active is not None
    assert [one.target for one in observed.active.disks] == ["vda", "vdz"]
    desired = Desired(domain, Power.RUNNING, 0.0)
    assert plan.plan(desired, observed).restart_required == ("disks",)


async def test_looking_at_many_domains_is_cheap(
    rig: hypervisor_fixtures.LibvirtRig, driver: libvirt_driver.LibvirtQemu
) -> None:
    count = 50
    for number in range(count):
        sketched = hypervisor_fixtures.sketch(f"many-{number}", rig.host.folder, number)
        rig.plant(sketched, mark=sketched.mark)
    began = time.monotonic()
    assert len(await driver.observe_all()) == count
    assert (time.monotonic() - began) / count < 0.1  # seconds a domain; about 0.002 when nothing else runs
