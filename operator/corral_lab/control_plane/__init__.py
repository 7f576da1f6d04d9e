"""The lab's Kubernetes: etcd, kube-apiserver and kube-controller-manager as ordinary processes, no container runtime.

`plane.ControlPlane` is the way in; the other modules are its parts: certificates, ports, command lines, probes.
"""
