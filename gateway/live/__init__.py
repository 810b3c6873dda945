"""Connections that outlive their request, by principal: what revocation ends."""
