"""The cases, a module or more for each group."""
