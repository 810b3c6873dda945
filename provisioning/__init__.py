"""Records of people and organizations, written on first sight. Knows nothing of HTTP and never imports `gateway`."""
