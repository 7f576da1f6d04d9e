"""The controller: makes Instances of VirtualMachines, and concludes what tenants and operators read.

A file a kind. Every kind's `reconcile(world, key)` is level-triggered: it looks at the world, does what is missing, and
writes at most one status. It imports no driver and never talks to a host.
"""
