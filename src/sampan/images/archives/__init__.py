"""Images as archives: what `docker save` and its like write, OCI layouts, root file systems."""
