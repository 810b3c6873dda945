"""What the upstream is told of the caller."""
