"""Images: fetched once a host, checked, immutable."""
