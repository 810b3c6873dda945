"""PostgreSQL: reaching it, running an embedded one, and keeping its schema."""
