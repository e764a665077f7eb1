"""Who the api process becomes."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from outgate.errors import HostNotCapableError, SettingError
from outgate.privileges import Identity
from outgate.settings import Settings, variable_of

_API_USERS: Final = ("outgate", "nobody")
_FRONT_USERS: Final = ("outgate-tunnel", "daemon")
_GATE_USERS: Final = ("outgate-gate", "bin")


def find_api_identity(settings: Settings) -> Identity:
    """The unprivileged user of the api. Raises :class:`SettingError` when the one that is set is none, or is root."""
    return _find_identity("api_user", _API_USERS if settings.api_user is None else (settings.api_user,))


def find_front_identity(settings: Settings) -> Identity:
    """The unprivileged user of the tunnel front, who is not the api's: it could read the store.

    Raises :class:`SettingError` as :func:`find_api_identity` does, and when the two are one.
    """
    front = _find_identity("tunnel_user", _FRONT_USERS if settings.tunnel_user is None else (settings.tunnel_user,))
    if front.uid == find_api_identity(settings).uid:
        raise SettingError(f"{variable_of('tunnel_user')} is the api's user; name another one.")
    return front


def find_gate_identity(settings: Settings) -> Identity:
    """The unprivileged user of the gate, who is neither the api's nor the tunnel front's.

    Raises :class:`SettingError` as :func:`find_api_identity` does, and when two are one.
    """
    gate = _find_identity("gate_user", _GATE_USERS if settings.gate_user is None else (settings.gate_user,))
    others = {find_api_identity(settings).uid: "api"}
    if settings.tunnel_domain is not None:
        others[find_front_identity(settings).uid] = "tunnel front"
    if gate.uid in others:
        raise SettingError(f"{variable_of('gate_user')} is the {others[gate.uid]}'s user; name another one.")
    return gate


def _find_identity(field: str, names: tuple[str, ...]) -> Identity:
    for name in names:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        if user.pw_uid == 0:
            raise SettingError(f"{variable_of(field)} is {name!r}, which is root; name an unprivileged user.")
        return Identity(user.pw_uid, user.pw_gid)
    raise SettingError(f"There is no user {' or '.join(names)}; set {variable_of(field)} to one there is.")


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
