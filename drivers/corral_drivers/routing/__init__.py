"""Routing: a host route and a permanent neighbour for each address of a guest."""
