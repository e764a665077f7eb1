"""All SQL: tables, migrations, and typed functions that take an open connection.

A function here never begins or ends a transaction; :mod:`outgate.control` does, through
:class:`outgate.store.database.Database`. Every table that holds an account's things carries the account's
id, and every function that reads or changes them takes it.
"""
