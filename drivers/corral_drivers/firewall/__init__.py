"""The firewall: what a guest may send, whom it may reach, and who may reach it."""
