"""The routes, one module a noun: what a path means, in terms of the engine."""
