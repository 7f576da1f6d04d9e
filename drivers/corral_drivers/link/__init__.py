"""Links: a guest's tap, without a bridge."""
