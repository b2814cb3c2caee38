"""The OCI specifications as typed values; no I/O."""
