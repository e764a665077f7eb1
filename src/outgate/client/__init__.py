"""Typed HTTP clients: agent → api, api → agent, and the command line → the public API."""
