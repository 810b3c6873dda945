"""Verified principal in, the Actor our systems know out."""
