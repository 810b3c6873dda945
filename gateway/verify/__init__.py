"""Is the credential good, and whom does it speak for: pure rules, and the signing keys they need."""
