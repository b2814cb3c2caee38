"""Images from registries: downloads, and layers that are unpacked while they arrive."""
