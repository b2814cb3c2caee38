"""Layer trees by chain ID and the overlay mounts made of them."""
