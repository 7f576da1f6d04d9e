"""Seeds: the NoCloud disk from which a guest configures itself."""
