"""DHCP and router advertisements: a stock image comes up without a seed."""
