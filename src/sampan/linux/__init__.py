"""The kernel, one module a facility, in its own spelling; knows nothing of containers."""
