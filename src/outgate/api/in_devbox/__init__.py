"""Programs that run inside devboxes, sent there as text. They import nothing but Python's standard library."""
