"""Docker's JSON of the engine's values, one module a noun, in the newest version's shape."""
