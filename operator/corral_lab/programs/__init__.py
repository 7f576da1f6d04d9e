"""The control plane's programs: found on this machine, or built once from the go.mod that lies here.

There is one recipe for the demo, the tests and CI, and it needs nothing but a Go toolchain. `go.mod` is the single
truth for the versions: the code reads them from it.
"""
