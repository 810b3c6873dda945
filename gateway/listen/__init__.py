"""Sockets in, plain values out: the lanes that clients connect to."""
