"""The parts of `benchmarks/compare.py`: data sets, splits, variants, one run, a peer, the table."""
