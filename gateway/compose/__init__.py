"""What a process is composed of, part by part; `composition.py` puts it together."""
