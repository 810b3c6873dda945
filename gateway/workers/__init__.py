"""Several processes as one gateway: a supervisor, which holds the ports, and workers, which answer clients."""
