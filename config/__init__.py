"""Settings: read once, frozen, every problem reported together with file and line."""
