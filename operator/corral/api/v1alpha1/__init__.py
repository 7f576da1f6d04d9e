"""Version v1alpha1 of the API: a module a kind, or a pair of kinds that are nothing without each other."""

from __future__ import annotations

from corral.api import schema
from corral.api.v1alpha1 import cloud, host, image, instance, ippool, network, virtualmachine, virtualmachineclass

RESOURCES: tuple[schema.Resource, ...] = (
    cloud.RESOURCE,
    host.HOST,
    host.HOST_STATE,
    image.CLUSTER_IMAGE,
    image.IMAGE,
    instance.RESOURCE,
    ippool.IP_ALLOCATION,
    ippool.IP_BLOCK,
    ippool.IP_POOL,
    network.CLUSTER_NETWORK,
    network.NETWORK,
    virtualmachine.RESOURCE,
    virtualmachineclass.RESOURCE,
)
"""Every kind, in the order of the modules."""
