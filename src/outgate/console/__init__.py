"""The web console: pages made on the server, by the same use-cases as the API."""
