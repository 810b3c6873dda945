"""Which rule a request falls under, and whether the Actor may. Pure."""
