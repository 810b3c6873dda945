"""`gateway dev`: everything a developer needs to see the gateway work, on one machine and without an account."""
