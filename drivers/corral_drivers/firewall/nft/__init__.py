"""The firewall by nftables: rules and elements as its own text, read back as its JSON."""
