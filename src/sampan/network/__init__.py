"""Network drivers, address management, the firewall rules they need, and a container's own files."""
