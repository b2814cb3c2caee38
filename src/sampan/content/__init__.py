"""Blobs found by digest, laid out as an OCI image layout."""
