"""QEMU guests through libvirt: rendering, parsing, and the driver that applies them."""
