"""The catalogue of reasons: every `reason` of every condition that Corral writes is an entry here.

A reason is stable: people alert on it. It says in one sentence what is so, who must act, and the next command to type.
The reference page is generated from this module; a test refuses a condition whose reason is not in it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Actor(enum.StrEnum):
    """Who must act, or nobody."""

    NOBODY = "nobody"
    TENANT = "the tenant"
    OPERATOR = "the cloud's operator"
    CORRAL = "Corral"


@dataclass(frozen=True, slots=True)
class Reason:
    """One entry. `next` may name `{namespace}`, `{name}` and `{host}` of the object that the condition is on.

    `final`: waiting does not help, the object is Stalled at once, and not only past its deadline.
    """

    code: str
    sentence: str
    actor: Actor = Actor.NOBODY
    next: str = ""
    final: bool = False

    def message(self, detail: str = "", **names: str) -> str:
        """What a person reads: the detail where there is one, else the sentence; then the next command."""
        told = (detail or self.sentence).strip()
        told = told if told.endswith((".", "!", "?")) else f"{told}."
        return f"{told} Next: {self.next.format(**names)}" if self.next else told


_VM = "kubectl get vm.corral.dev {name} -n {namespace} -o yaml"
_IMAGES = "kubectl get clusterimages.corral.dev,images.corral.dev -n {namespace}"
_HOST = "kubectl get hosts.corral.dev -o wide"
_ALLOCATIONS = "kubectl get ipallocations.corral.dev"
_AGENT_LOG = "read the agent's log on host {host}"
_SESSIONS = "on host {host}, vtysh -c 'show bgp summary'"

_CATALOGUE = (
    # It holds.
    Reason("Running", "The guest runs as its spec says"),
    Reason("Halted", "The guest is off, as its spec says"),
    Reason("Placed", "A host has room for the guest and is to run it"),
    Reason("Held", "The images are on the host"),
    Reason("DisksReady", "The disks are there"),
    Reason("Routed", "The host routes the guest's addresses to it"),
    Reason("NotNeeded", "The guest is off and needs no network"),
    Reason("AsWanted", "The guest's power state is as its spec says"),
    Reason("Answering", "The agent answers"),
    Reason("HypervisorAnswers", "The hypervisor answers"),
    Reason("FabricConnected", "Every neighbor is told the host's addresses"),
    Reason("Usable", "It can be used"),
    Reason("Healthy", "The controller works, and holds nothing back"),
    # It is on its way.
    Reason("Provisioning", "The host has been told, and has not answered yet"),
    Reason("ImageFetching", "The host fetches the image"),
    Reason("WaitingForEarlier", "This waits for what comes before it"),
    Reason(
        "WaitingForHosts",
        "The controller has just begun, and hosts have not said yet what they run",
        Actor.OPERATOR,
        _HOST,
    ),
    Reason("Starting", "The guest is being started"),
    Reason("ShuttingDown", "The guest was asked to shut down and has its grace period"),
    Reason("AgentNotSeen", "No agent has answered for this host yet", Actor.OPERATOR, "corral agent --help"),
    Reason("RestartNeeded", "The guest runs with an older spec until its next start", Actor.TENANT, _VM),
    # A tenant must act.
    Reason("ClassNotFound", "There is no such VirtualMachineClass", Actor.TENANT, "kubectl get vmclass"),
    Reason("ImageNotFound", "There is no such image", Actor.TENANT, _IMAGES),
    Reason(
        "UserDataSecretMissing",
        "The Secret with the guest's user data is not there; it is looked for again every minute",
        Actor.TENANT,
        "kubectl get secrets -n {namespace}",
    ),
    Reason(
        "UserDataMalformed", "The guest's user data is nothing that cloud-init can read", Actor.TENANT, _VM, final=True
    ),
    Reason(
        "NetworkNotFound",
        "There is no such network",
        Actor.TENANT,
        "kubectl get clusternetworks.corral.dev,networks.corral.dev -n {namespace}",
    ),
    Reason(
        "AddressNotInPool",
        "The VirtualMachine asks for an address that its network does not have",
        Actor.TENANT,
        _VM,
        final=True,
    ),
    Reason("ImageChecksumMismatch", "What the image's URL gives has another sha256", Actor.TENANT, _IMAGES, final=True),
    Reason("ImageNotAnImage", "What the image's URL gives is not of its format", Actor.TENANT, _IMAGES, final=True),
    Reason("ImageTooLarge", "The image is larger than the host accepts", Actor.TENANT, _IMAGES, final=True),
    Reason("ImageMissingAtSource", "The image's server says that there is no such file", Actor.TENANT, _IMAGES),
    Reason("ImageUnreachable", "The image's server does not answer", Actor.TENANT, _IMAGES),
    Reason("DiskSmallerThanImage", "A disk is smaller than the image it starts from", Actor.TENANT, _VM, final=True),
    Reason("DiskShrinkRefused", "A disk never shrinks", Actor.TENANT, _VM, final=True),
    # What a schema of ours admits, its model reads: the API server has the schemas of another version.
    Reason(
        "SpecNotUnderstood",
        "The spec is not understood",
        Actor.OPERATOR,
        "kubectl apply --server-side -f crds/",
        final=True,
    ),
    Reason("NoHostMatches", "No host is as the VirtualMachine's placement asks", Actor.TENANT, _VM),
    Reason(
        "GuestKeepsStopping",
        "The guest stops soon after each start; it is started again with growing pauses",
        Actor.TENANT,
        _VM,
    ),
    # The operator must act.
    Reason("NoHostFits", "No host has room for the guest", Actor.OPERATOR, _HOST),
    Reason(
        "PoolNotFound", "A network names an IPPool that is not there", Actor.OPERATOR, "kubectl get ippools.corral.dev"
    ),
    Reason(
        "PoolExhausted", "The network's pools have no free address", Actor.OPERATOR, "kubectl get ippools.corral.dev"
    ),
    Reason(
        "PoolOverlaps",
        "Another pool has the same addresses",
        Actor.OPERATOR,
        "kubectl get ippools.corral.dev",
        final=True,
    ),
    Reason("AgentSilent", "The host's agent has not answered for a while; guests run on", Actor.OPERATOR, _AGENT_LOG),
    Reason("HypervisorUnavailable", "The host's hypervisor does not answer", Actor.OPERATOR, _AGENT_LOG),
    Reason("NeighborsMissing", "Not every neighbor is told the host's addresses", Actor.OPERATOR, _SESSIONS),
    Reason(
        "AnnouncedTooMuch",
        "The host announces addresses that are not on it",
        Actor.OPERATOR,
        "on host {host}, systemctl kill --signal=SIGKILL frr, which reads the kernel's routes anew and loses none",
    ),
    Reason(
        "NoAddressForNat",
        "The guest's network has NAT, and its host has no address of its own",
        Actor.OPERATOR,
        _HOST,
    ),
    Reason("NotAnnounced", "The fabric is not told of the guest's addresses", Actor.OPERATOR, _HOST),
    Reason("FabricUnreachable", "No neighbor is told the host's addresses", Actor.OPERATOR, _SESSIONS),
    Reason(
        "FrrUnavailable",
        "The host's routing daemons do not answer",
        Actor.OPERATOR,
        "on host {host}, install frr, set bgpd=yes in /etc/frr/daemons, and systemctl restart frr",
    ),
    Reason(
        "FrrForeign",
        "FRR's configuration on the host is not Corral's, and is left as it is",
        Actor.OPERATOR,
        "clear it on host {host}, or set spec.bgp.takeOver of the Host, which replaces it",
        final=True,
    ),
    Reason(
        "FrrUnsupported",
        "The host's FRR runs with other defaults than Corral counts on",
        Actor.OPERATOR,
        "on host {host}, take frr_profile out of /etc/frr/daemons, and systemctl restart frr",
    ),
    Reason(
        "BgpTaken",
        "Another Host has the AS or an address that this one asks for, and this one announces nothing",
        Actor.OPERATOR,
        "kubectl edit hosts.corral.dev {name}, and give it an AS and addresses of its own",
    ),
    Reason("FrrRefuses", "FRR does not take its configuration", Actor.CORRAL, _AGENT_LOG),
    Reason("HostOutOfMemory", "The host can't hold the guest's memory", Actor.OPERATOR, _HOST),
    Reason("HostDiskFull", "The host's disk is full", Actor.OPERATOR, _HOST),
    Reason("HostUnsupported", "The host can't run such a guest", Actor.OPERATOR, _HOST, final=True),
    Reason("DeviceBusy", "Another process on the host holds a device of the guest", Actor.OPERATOR, _AGENT_LOG),
    Reason(
        "NameTaken", "Something that is not Corral's has the name on the host", Actor.OPERATOR, _AGENT_LOG, final=True
    ),
    Reason(
        "DiskMissing",
        "A disk that the guest had is gone from its pool; no empty one is made in its place",
        Actor.OPERATOR,
        _AGENT_LOG,
        final=True,
    ),
    Reason(
        "MarksDiffer",
        "What is on the machine was made for another Host or Cloud: it runs on, and nothing is touched. What is of "
        "this Cloud is taken over in seconds; else give the machine back to its own, or move the agent's folder away",
        Actor.OPERATOR,
        _HOST,
    ),
    Reason("PoolForeign", "The host's disk folder is not this cloud's", Actor.OPERATOR, _AGENT_LOG, final=True),
    Reason(
        "PrefixTaken", "A route that is not Corral's holds the guest's address", Actor.OPERATOR, _AGENT_LOG, final=True
    ),
    Reason(
        "RemovalsHeld",
        "So many removals look like an accident: nothing more is removed until a person says so",
        Actor.OPERATOR,
        'kubectl patch cloud cloud --type=merge -p \'{{"spec":{{"deletionGuard":{{"release":"VALUE OF '
        "status.heldSince\"}}}}}}'",
        final=True,
    ),
    Reason(
        "ReasonNotKnown",
        "The host gives a reason that the controller does not know: its agent is newer",
        Actor.OPERATOR,
        _HOST,
    ),
    Reason(
        "WriteRefused",
        "The API server refuses what Corral has to write for this",
        Actor.OPERATOR,
        "kubectl auth can-i --list --as=corral:controller",
        final=True,
    ),
    Reason("AddressTaken", "Another VirtualMachine has an address of this one", Actor.OPERATOR, _ALLOCATIONS),
    # Corral must.
    Reason("HypervisorFailed", "The hypervisor refused a step", Actor.CORRAL, _AGENT_LOG),
    Reason("StorageFailed", "A disk could not be made", Actor.CORRAL, _AGENT_LOG),
    Reason("SeedFailed", "The guest's seed could not be written", Actor.CORRAL, _AGENT_LOG),
    Reason("LinkFailed", "The guest's link could not be made", Actor.CORRAL, _AGENT_LOG),
    Reason("RoutingFailed", "The guest's addresses could not be routed", Actor.CORRAL, _AGENT_LOG),
    Reason("FirewallFailed", "The rules of who may send what could not be set", Actor.CORRAL, _AGENT_LOG),
    Reason(
        "DhcpFailed",
        "The guest is not answered when it asks for its addresses; one that has a seed runs all the same",
        Actor.CORRAL,
        _AGENT_LOG,
    ),
    Reason("ImageFailed", "The image could not be kept on the host", Actor.CORRAL, _AGENT_LOG),
)

CATALOGUE: dict[str, Reason] = {reason.code: reason for reason in _CATALOGUE}
"""Every reason, by its code."""


def reason(code: str) -> Reason:
    """The entry of this code. A code that is not in the catalogue is a defect: `KeyError`."""
    return CATALOGUE[code]


def page() -> str:
    """The reference page, in Markdown."""
    lines = [
        "# Reasons",
        "",
        "Every condition that Corral writes has one of these reasons. A code is stable: alert on it. Generated by",
        "`make docs` from `operator/corral/reasons`: do not edit.",
        "",
        "| reason | what it says | who must act | next |",
        "|---|---|---|---|",
    ]
    for one in sorted(_CATALOGUE, key=lambda one: one.code):
        following = one.next.format(namespace="NAMESPACE", name="NAME", host="HOST")
        command = f"`{following}`" if following else ""
        lines.append(f"| `{one.code}` | {one.sentence}. | {one.actor} | {command} |")
    return "\n".join(lines) + "\n"
