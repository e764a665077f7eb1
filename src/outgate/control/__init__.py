"""Use-cases. A transaction begins and ends here; what comes back is a value, what goes wrong an OutgateError.

Functions take :class:`outgate.control.services.Services` first, then who asks
(:class:`outgate.control.authentication.Caller`), then what is asked, then the time.
"""
