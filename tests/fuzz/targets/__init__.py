"""The targets, by what they read. Each is a function of bytes that raises when an invariant does not hold."""
