"""One module a verb: its flags as a table and the function that carries it out."""
