"""The client's side of the registry protocol: OCI distribution-spec 1.1 and what Docker adds to it."""
