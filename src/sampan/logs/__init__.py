"""Log drivers: the shim's writers and the readers of what they wrote."""
