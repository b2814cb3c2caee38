"""The OCI runtime: from a bundle to an isolated process; also the command sampan-oci."""
