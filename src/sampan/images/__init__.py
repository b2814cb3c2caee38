"""Images: load, save, import, tag, remove, and the machine's own root as an image."""
