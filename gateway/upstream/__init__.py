"""One forwarded exchange: connections to a backend, the request's bytes up, the answer's bytes down."""
