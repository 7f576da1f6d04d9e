"""The hypervisor: domains, defined, started, stopped."""
