"""The api in a process of its own, as ``outgate serve`` runs it. Run as a program by the tests.

Prints one JSON line when it serves; with OUTGATE_TEST_WATCH_FILES it prints what it opens under the interpreter's
own directories after it gave up its privileges, one line each, on stderr.
"""

import json
import os
import socket
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path

from outgate.api import serve
from outgate.api.serve import HostToken, ResourcePlaces, ServeConfig, Serving, run_api
from outgate.control.configuration import ApiSettings
from outgate.privileges import Identity, drop_privileges
from support.api_server import FakeGateway


def watch_files(identity: Identity) -> None:
    """Give up privileges, and from then on report files of the interpreter and of installed packages."""
    drop_privileges(identity)
    places = tuple({sys.prefix, sys.base_prefix, str(Path(serve.__file__).parents[2])})

    def report(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(places):
            os.write(2, f"opened {arguments[0]}\n".encode())

    sys.addaudithook(report)


def main() -> None:
    url, public_fd, internal_fd, first_key, user = sys.argv[1:]
    if "OUTGATE_TEST_WATCH_FILES" in os.environ:
        serve.drop_privileges = watch_files  # type: ignore[attr-defined] # the test looks at what comes after it
    directory = Path(url.removeprefix("sqlite:///")).parent
    config = ServeConfig(
        database_url=url,
        settings=ApiSettings(
            webhook_networks=(ip_network("127.0.0.0/8"),), webhook_http_hosts=(ip_address("127.0.0.1"),)
        ),
        gateway=FakeGateway(),
        resources=ResourcePlaces(directory / "secret-key", directory / "objects"),
        first_key=first_key or None,
        host=HostToken("local", "token"),
        identity=Identity(int(user), int(user)) if user else None,
    )

    def announce(serving: Serving) -> None:
        made = serving.first_key
        status = Path("/proc/self/status").read_text()
        print(json.dumps({"api_key": made and made.api_key, "status": status}), flush=True)

    run_api(config, [socket.socket(fileno=int(public_fd))], [socket.socket(fileno=int(internal_fd))], announce)


if __name__ == "__main__":
    main()
