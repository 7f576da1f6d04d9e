"""Storage: the disks of guests, cloned thin from images."""
