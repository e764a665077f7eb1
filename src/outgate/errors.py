"""Errors that carry what their reader needs: a stable code, the field to blame, and the remedy."""


class OutgateError(Exception):
    """Base of every error that Outgate raises on purpose.

    ``message`` is one sentence for the person at the terminal; ``code`` is stable and for programs.
    """

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidValueError(OutgateError, ValueError):
    """A value that the caller gave cannot be used.

    ``field`` is the path of the value to blame (``egress.allowed_hostnames[2]`` style, without the
    ``egress.`` prefix on the wire), or None when the whole document is at fault.
    """

    code = "invalid_value"

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.field = field

    def at(self, field: str) -> "InvalidValueError":
        """The same complaint, located at ``field``."""
        return InvalidValueError(self.message, field=field, code=self.code)


class SettingError(OutgateError):
    """A setting has a value Outgate cannot run with. It refuses to start and names the setting."""

    code = "bad_setting"


class HostNotCapableError(OutgateError):
    """This machine lacks something enforcement needs. There is no mode that goes on without it."""

    code = "host_not_capable"
