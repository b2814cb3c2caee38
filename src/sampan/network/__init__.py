"""Network drivers, address management and the firewall rules they need."""
