"""The API: pydantic models of every kind, from which the CRDs are generated."""
