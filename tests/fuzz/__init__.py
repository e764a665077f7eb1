"""Fuzzing of every parser that reads what a devbox wrote; docs/fuzzing.md says how to run it."""
