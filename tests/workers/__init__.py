"""Several workers behind one supervisor."""
