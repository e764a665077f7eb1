"""The demo and the little internet it runs on: namespaces, far-side servers and a journal of what reached them.

The tests use the same internet (``tests/support/internet.py``), so what the demo shows is what the tests judge by.
"""
