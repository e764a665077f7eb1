"""What holds for all tests."""

from hypothesis import settings

# A busy machine must not fail a property: the bound on time is pytest's, per test.
settings.register_profile("outgate", deadline=None)
settings.load_profile("outgate")
