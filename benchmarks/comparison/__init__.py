"""The parts of `make compare`: data sets, splits, variants, one run, a peer, the table."""
