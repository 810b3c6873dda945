"""What arrived: request target, host, field hygiene, client address. Pure."""
