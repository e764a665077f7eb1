"""`make bench`: every speed that docs/benchmarks.md promises, measured in one run and as ratios."""
