"""What holds for all tests."""

import sys

import structlog
from hypothesis import HealthCheck, settings

# A busy machine must not fail a property: the bound on time is pytest's, per test.
settings.register_profile("outgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("outgate")

# Servers that run within the tests log where processes of their own would: not among what a command prints.
structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.stderr))
