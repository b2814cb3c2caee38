"""The fork server, the process that keeps one container, their protocol and its client."""
