"""The systems that the corpus can be run on; each is an adapter of a few lines."""
