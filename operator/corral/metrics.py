"""What a process counts of itself, for Prometheus: the controller and the agent share the names.

One `Metrics` a process, passed to whoever counts; nothing here knows who serves it. A label's values come from a fixed
list (kinds, verbs, rooms, reasons), never from the name of an object: a fleet of any size has the same series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import prometheus_client
from prometheus_client import metrics_core

import corral

_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)


@dataclass(frozen=True, slots=True)
class Fleet:
    """How production is doing: VirtualMachines by status, Hosts by whether they are Ready, removals that wait."""

    virtual_machines: Mapping[str, int]
    hosts: Mapping[str, int]
    removals_held: int


class Metrics:
    """The instruments of one process, in a registry of their own. Durations are in seconds."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self.registry)
        self.fleet: Callable[[], Fleet] | None = None
        """Asked at every scrape; None where this process does not speak for the fleet."""
        self.registry.register(_FleetCollector(lambda: self.fleet))
        self._queue_depth = self._gauge("corral_queue_depth", "Objects that wait for a pass or are in one.")
        self._queue_oldest = self._gauge("corral_queue_oldest_seconds", "How long the first one in the queue waits.")
        self._build()
        self._passes()
        self._requests()
        self._calls()
        self.drift = prometheus_client.Counter(
            "corral_drift_put_back",
            "Steps that put back what somebody had changed on the host, by the room that took them.",
            ["room"],
            registry=self.registry,
        )

    def follow(self, depth: Callable[[], float], oldest: Callable[[], float]) -> None:
        """Ask these about the queue at every scrape."""
        self._queue_depth.set_function(depth)
        self._queue_oldest.set_function(oldest)

    def reconciled(self, kind: str, outcome: str, seconds: float) -> None:
        """A pass over an object of this kind ended so."""
        self.reconciles.labels(kind, outcome).inc()
        self._reconcile_seconds.labels(kind).observe(seconds)

    def requested(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """The API server answered a request with this code; `unanswered` for none."""
        self._api_requests.labels(verb, resource, code).inc()
        self._api_seconds.labels(verb).observe(seconds)

    def called(self, room: str, call: str, outcome: str, seconds: float) -> None:
        """A room of the host was asked or told something, and this came of it."""
        self._outside_calls.labels(room, call, outcome).inc()
        self._outside_seconds.labels(room, call).observe(seconds)

    def _build(self) -> None:
        build = prometheus_client.Info("corral_build", "The version that runs.", registry=self.registry)
        build.info({"version": corral.version()})

    def _passes(self) -> None:
        self.reconciles = prometheus_client.Counter(
            "corral_reconciles",
            "Passes over an object, by its kind and by what came of them: done, again, failed, late, defect.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self._reconcile_seconds = self._histogram("corral_reconcile_seconds", "How long passes took.", "kind")

    def _requests(self) -> None:
        self._api_requests = prometheus_client.Counter(
            "corral_api_requests",
            "Requests to the API server, without watches, by the answer's code; `unanswered` for none.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self._api_seconds = self._histogram("corral_api_request_seconds", "How long the API server took.", "verb")

    def _calls(self) -> None:
        self._outside_calls = prometheus_client.Counter(
            "corral_outside_calls",
            "Calls to the host's rooms, by outcome: done, not-ready, unavailable, rejected, cancelled, defect.",
            ["room", "call", "outcome"],
            registry=self.registry,
        )
        self._outside_seconds = self._histogram("corral_outside_call_seconds", "How long they took.", "room", "call")

    def _gauge(self, name: str, text: str) -> prometheus_client.Gauge:
        return prometheus_client.Gauge(name, text, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> prometheus_client.Histogram:
        return prometheus_client.Histogram(name, text, labels, buckets=_SECONDS, registry=self.registry)


class _FleetCollector:
    """Asks how the fleet is when Prometheus does, so that nobody counts along."""

    def __init__(self, fleet: Callable[[], Callable[[], Fleet] | None]) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[metrics_core.Metric]:
        look = self._fleet()
        if look is None:
            return
        fleet = look()
        machines = metrics_core.GaugeMetricFamily(
            "corral_virtual_machines", "VirtualMachines, by the status that people read.", labels=["status"]
        )
        for status, number in sorted(fleet.virtual_machines.items()):
            machines.add_metric([status], number)
        yield machines
        hosts = metrics_core.GaugeMetricFamily("corral_hosts", "Hosts, by their condition Ready.", labels=["ready"])
        for ready, number in sorted(fleet.hosts.items()):
            hosts.add_metric([ready], number)
        yield hosts
        yield metrics_core.GaugeMetricFamily(
            "corral_removals_held", "Removals that the guard holds until a person says so.", value=fleet.removals_held
        )
