"""How often the operator's lists behind the policies' flags changed on this host.

A flow that an earlier list allowed must not live on by a later one, which may have lost its network: the count is part
of such flows' grants (:func:`outgate.model.plan.grant_of_endpoints`), so that after a change each is judged again.
"""

import hashlib
from typing import Final

import msgspec

from outgate.settings import Settings

_FILE: Final = "endpoints.json"


class _Noted(msgspec.Struct, frozen=True):
    digest: str
    count: int


def count_endpoint_changes(settings: Settings) -> int:
    """The count; one more than at the last call when the lists differ from those of then. Raises OSError.

    Not synchronised to disk: a power cut that loses the file loses every flow with it.
    """
    lists = (settings.agent_gateway_hosts, settings.mcp_gateway_hosts, settings.mirror_hosts)
    digest = hashlib.sha256(msgspec.json.encode(lists)).hexdigest()
    path = settings.agent_dir / _FILE
    try:
        noted = msgspec.json.decode(path.read_bytes(), type=_Noted)
    except (FileNotFoundError, msgspec.DecodeError):
        noted = _Noted("", 0)
    if noted.digest == digest:
        return noted.count
    changed = _Noted(digest, noted.count + 1)
    draft = path.with_suffix(".new")
    draft.write_bytes(msgspec.json.encode(changed))
    draft.replace(path)
    return changed.count
