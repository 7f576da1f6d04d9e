"""Routing: a host route and a permanent neighbour for each address of a guest, and a blackhole for each block."""
