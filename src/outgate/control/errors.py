"""What a use-case can refuse. The api maps each class to a status; the text is for the person who asked."""

from outgate.errors import OutgateError


class UnauthorizedError(OutgateError):
    """No key, or none that is valid."""

    code = "unauthorized"


class ForbiddenError(OutgateError):
    """The key is valid and may not do this."""

    code = "forbidden"


class NotFoundError(OutgateError):
    """There is no such thing in the caller's account. (That another account has one is not said.)"""

    code = "not_found"


class ConflictError(OutgateError):
    """What was asked for contradicts what is there; asking again will not help."""

    code = "conflict"


class TooLargeError(OutgateError):
    """What was sent is more than is taken."""

    code = "too_large"


class TransferStalledError(OutgateError):
    """The client stopped sending in the middle."""

    code = "transfer_stalled"


class WaitTimeoutError(OutgateError):
    """The wait ended before anything happened; the caller may wait on."""

    code = "wait_timeout"


class ExecutionWaitTimeoutError(WaitTimeoutError):
    """The same for an execution. Clients ask again at once when they are told to."""

    code = "execution_wait_timeout"


class StoppingError(OutgateError):
    """The api is being stopped or restarted; the same request will succeed in a moment."""

    code = "stopping"


class TooManyWaitsError(OutgateError):
    """The account holds as many waiting requests as one account may."""

    code = "too_many_waits"


class TooManyAttemptsError(OutgateError):
    """The client showed so many wrong keys that the one it shows now is not looked at, for ``wait_s`` seconds."""

    code = "too_many_attempts"

    def __init__(self, wait_s: int) -> None:
        super().__init__(
            "Too many keys that are not valid were sent from your address, so this one was not looked at."
            f" Check the key, and try again in {wait_s} s."
        )
        self.wait_s = wait_s


class HostUnavailableError(OutgateError):
    """No host, or not the one that is needed, answers just now."""

    code = "host_unavailable"
