"""Names of containers: what they are asked for, and the process that answers at 127.0.0.11."""
