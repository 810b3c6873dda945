"""Feature flags: who says what they are, and what of it is told to whom."""
