"""Making images from what this machine has: its own programs, or a distribution's packages."""
