"""FRRouting: zebra and bgpd, spoken to on their own sockets (https://docs.frrouting.org)."""
