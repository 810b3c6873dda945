"""Own endpoints: what the gateway answers itself."""
