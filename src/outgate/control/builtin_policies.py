"""The policies of devboxes that nobody gave one: part of the installation, in no account, never changed."""

from typing import Final

from outgate.control.configuration import DefaultPolicy
from outgate.model.desired import PolicyDocument

_ALLOW_ALL: Final = PolicyDocument(
    id="npol_default_allow_all",
    name="default: allow all",
    number=1,
    revision=1,
    allow_all=True,
    allow_devbox_to_devbox=True,
)
_DENY_ALL: Final = PolicyDocument(id="npol_default_deny_all", name="default: deny all", number=2, revision=1)

BUILTIN_POLICIES: Final = {document.id: document for document in (_ALLOW_ALL, _DENY_ALL)}


def default_policy_id(default: DefaultPolicy) -> str:
    """The built-in policy that the setting names."""
    match default:
        case DefaultPolicy.ALLOW_ALL:
            return _ALLOW_ALL.id
        case DefaultPolicy.DENY_ALL:
            return _DENY_ALL.id
