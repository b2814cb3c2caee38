"""The Docker Engine API over HTTP: one route module a noun; holds no container logic."""
