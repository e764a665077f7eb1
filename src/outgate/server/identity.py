"""Who the api process becomes."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from outgate.api.privileges import Identity
from outgate.errors import HostNotCapableError, SettingError
from outgate.settings import Settings, variable_of

_PREFERRED_USERS: Final = ("outgate", "nobody")


def find_api_identity(settings: Settings) -> Identity:
    """The unprivileged user of the api. Raises :class:`SettingError` when the one that is set is none, or is root."""
    names = _PREFERRED_USERS if settings.api_user is None else (settings.api_user,)
    for name in names:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        if user.pw_uid == 0:
            raise SettingError(f"{variable_of('api_user')} is {name!r}, which is root; name an unprivileged user.")
        return Identity(user.pw_uid, user.pw_gid)
    raise SettingError(f"There is no user {' or '.join(names)}; set {variable_of('api_user')} to one there is.")


@contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """Do the body with the rights of ``identity``, then be root again.

    The api's directory belongs to a process that may have been taken over: root must not open or change
    anything in it, lest a link that lies there leads to something else.
    """
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(identity.gid)
    os.seteuid(identity.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def require_root(what: str) -> None:
    """Raise :class:`HostNotCapableError` unless this process is root."""
    if os.geteuid() != 0:
        raise HostNotCapableError(f"{what} needs root: it makes network namespaces, rules and sandboxes. Use sudo.")
