"""Resolve: from what a tenant wrote to what a host must run, in two pure steps.

`requirements` follows every reference of a VirtualMachine; `instance` joins them with a placement. Called by the
controller alone.
"""
