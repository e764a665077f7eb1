"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# A busy machine must not fail a property: the bound on time is pytest's, per test.
settings.register_profile("outgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("outgate")
