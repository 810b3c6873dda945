"""The benchmark's parsers, judgements and report; the benchmark itself is run by hand."""
