"""Drivers: each room converges one kind of thing on one host, and knows nothing of Kubernetes.

A room holds a small `port`, a `model` of frozen values, a pure `plan`, one package or module an implementation, and a
`simulated` twin that passes the same contract suite. Drivers never import `corral` and never one another.
"""
