"""Composition roots: what is started, by whom, with which rights, and what is made of the settings."""
