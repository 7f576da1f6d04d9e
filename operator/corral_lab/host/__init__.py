"""Lab hosts: each is a network, mount and UTS namespace with its own libvirtd, so that one machine is several hosts.

`corral lab up`, the demo and the tests' fixtures bring hosts up (`lifecycle`), start libvirtd and the agent on them
(`libvirtd`, `programs`), and join them to the machine (`management`). Nothing of the machine's own libvirt, network or
files is touched.
"""
