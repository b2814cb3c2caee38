"""The composition root: options, zygote, engine, sockets and signals wired into sampand."""
