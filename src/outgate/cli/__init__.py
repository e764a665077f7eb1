"""The command line: thin shells over the server's composition roots, the public API and this host's state."""
