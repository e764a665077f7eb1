"""The tunnel front: takes HTTP for ``{port}-{key}.<tunnel domain>`` and carries it into devboxes.

A process of its own without privileges, because all it does is read what strangers and devboxes send. It knows
tunnels by a feed from the api, reaches devboxes through the agent's dial service, and is told by the gate which
devbox is behind a connection that comes from inside. HTTP is parsed by aiohttp towards clients and by h11 towards
devboxes.
"""
