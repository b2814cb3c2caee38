"""Containers, images and networks working together: lifecycle, exec, events, recovery."""
