"""The lab: a whole cloud on one machine, with nothing faked.

The demo, the integration tests and the benchmark all use it, as a library; people use it as `corral lab`. It starts
real programs as ordinary processes and leaves nothing behind when it is taken down.
"""
