"""The three programs of the control plane: their command lines, and where each is asked whether it is ready.

Pure: values in, values out. `plane` starts and stops what stands here. A changed command line restarts its program.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corral_lab import paths, process
from corral_lab.control_plane import pki, ports, probe
from corral_lab.programs import recipe

LOOPBACK = "127.0.0.1"
ETCD, API_SERVER, CONTROLLERS = "etcd", "kube-apiserver", "kube-controller-manager"
GRACE = 3.0
"""Seconds to end by itself. The API server would wait a minute for its watchers, and killing it loses nothing."""

NAMES = (ETCD, API_SERVER, CONTROLLERS)
AUDIT_POLICY = Path(__file__).with_name("audit-policy.yaml")

# What Corral's objects need, and no more: without the first two, deletions would never finish.
_CONTROLLERS = (
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "resourcequota-controller",
    "clusterrole-aggregation-controller",
    "validatingadmissionpolicy-status-controller",
)


@dataclass(frozen=True, slots=True)
class Site:
    """One lab's control plane: its folder, the address its API server listens at, and its ports."""

    lab: paths.LabDir
    address: str
    ports: ports.Ports

    @property
    def url(self) -> str:
        return f"https://{f'[{self.address}]' if ':' in self.address else self.address}:{self.ports.api}"

    def pki(self, name: str) -> pki.Pair:
        """The certificate and key of that name; `plane` has them issued."""
        return pki.Pair(certificate=self.lab.pki / f"{name}.crt", key=self.lab.pki / f"{name}.key")


def pid_file(lab: paths.LabDir, name: str) -> Path:
    return lab.run / f"{name}.pid"


def log(lab: paths.LabDir, name: str) -> Path:
    return lab.logs / f"{name}.log"


def audit_log(lab: paths.LabDir) -> Path:
    return lab.logs / "audit.log"


def controllers_kubeconfig(lab: paths.LabDir) -> Path:
    return lab.pki / "controllers.kubeconfig"


def daemons(site: Site, programs: recipe.Programs) -> tuple[process.Daemon, ...]:
    """In the order in which they start."""
    commands = {
        ETCD: (str(programs.etcd), *_etcd(site)),
        API_SERVER: (str(programs.kube_apiserver), *_api_server(site)),
        CONTROLLERS: (str(programs.kube_controller_manager), *_controllers(site)),
    }
    return tuple(
        process.Daemon(name, command, pid_file(site.lab, name), log(site.lab, name), grace=GRACE)
        for name, command in commands.items()
    )


def endpoints(site: Site) -> dict[str, probe.Endpoint]:
    """Where each component says whether it is ready, by name."""
    ca, etcd_ca = site.pki("ca").certificate, site.pki("etcd-ca").certificate
    admin = site.pki("admin")
    return {
        ETCD: probe.Endpoint(LOOPBACK, site.ports.etcd, "/health", etcd_ca, site.pki("etcd-client")),
        API_SERVER: probe.Endpoint(site.address, site.ports.api, "/readyz", ca, admin),
        CONTROLLERS: probe.Endpoint(LOOPBACK, site.ports.controllers, "/healthz", ca, admin),
    }


def _etcd(site: Site) -> tuple[str, ...]:
    """Source: etcd's configuration options, https://etcd.io/docs/latest/op-guide/configuration/."""
    clients, peers = f"https://{LOOPBACK}:{site.ports.etcd}", f"https://{LOOPBACK}:{site.ports.etcd_peer}"
    authority, own = site.pki("etcd-ca"), site.pki("etcd")
    return (
        "--name=lab",
        f"--data-dir={site.lab.etcd}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=lab={peers}",
        # An authority of its own: otherwise whoever has a client certificate of the API could read etcd.
        "--client-cert-auth",
        f"--trusted-ca-file={authority.certificate}",
        f"--cert-file={own.certificate}",
        f"--key-file={own.key}",
        "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={authority.certificate}",
        f"--peer-cert-file={own.certificate}",
        f"--peer-key-file={own.key}",
        # A lab outlives the death of its processes, not a power cut.
        "--unsafe-no-fsync",
        f"--quota-backend-bytes={8 * 1024**3}",
        "--log-level=warn",
    )


def _api_server(site: Site) -> tuple[str, ...]:
    """Source: https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/."""
    own, etcd_client = site.pki("apiserver"), site.pki("etcd-client")
    return (
        f"--bind-address={site.address}",
        f"--secure-port={site.ports.api}",
        f"--advertise-address={site.address}",
        # No pod ever reaches it through a Service, and Endpoints refuse a loopback address.
        "--endpoint-reconciler-type=none",
        # TEST-NET-1 (RFC 5737): the address of `kubernetes.default`, which nothing in a lab uses.
        "--service-cluster-ip-range=192.0.2.0/24",
        f"--etcd-servers=https://{LOOPBACK}:{site.ports.etcd}",
        f"--etcd-cafile={site.pki('etcd-ca').certificate}",
        f"--etcd-certfile={etcd_client.certificate}",
        f"--etcd-keyfile={etcd_client.key}",
        f"--tls-cert-file={own.certificate}",
        f"--tls-private-key-file={own.key}",
        f"--client-ca-file={site.pki('ca').certificate}",
        "--anonymous-auth=false",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={site.lab.pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={site.lab.pki / 'service-accounts.key'}",
        f"--audit-policy-file={AUDIT_POLICY}",
        f"--audit-log-path={audit_log(site.lab)}",
        "--audit-log-maxsize=100",
        "--audit-log-maxbackup=1",
        "--event-ttl=10m",
        "--profiling=false",
    )


def _controllers(site: Site) -> tuple[str, ...]:
    """Source: https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/."""
    own = site.pki("controllers-server")
    return (
        f"--kubeconfig={controllers_kubeconfig(site.lab)}",
        # The kubeconfig says so too; here, another URL is another command line, and so a restart.
        f"--master={site.url}",
        f"--controllers={','.join(_CONTROLLERS)}",
        "--leader-elect=false",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={site.ports.controllers}",
        f"--tls-cert-file={own.certificate}",
        f"--tls-private-key-file={own.key}",
        f"--root-ca-file={site.pki('ca').certificate}",
        f"--service-account-private-key-file={site.lab.pki / 'service-accounts.key'}",
        "--profiling=false",
    )
