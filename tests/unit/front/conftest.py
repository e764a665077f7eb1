"""One front for the tests of a module, before the web server that the end-to-end tests put into devboxes."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from outgate.model.tunnels import TunnelFeed, WakeState
from support.front_rig import ROUTES, FrontRig, open_front
from support.in_devbox.web_server import Handler


@pytest.fixture(scope="module")
def server_port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield server.server_address[1]
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture(scope="module")
def module_rig(tmp_path_factory: pytest.TempPathFactory, server_port: int) -> Iterator[FrontRig]:
    with open_front(tmp_path_factory.mktemp("front")) as rig:
        yield rig


@pytest.fixture
def rig(module_rig: FrontRig, server_port: int) -> FrontRig:
    """The module's front as it was at first."""
    rig = module_rig
    rig.ports.clear()
    rig.ports.update({(route.devbox_id, 3000): server_port for route in ROUTES})
    rig.statuses.clear()
    rig.woken.clear()
    rig.wake_state = WakeState.STARTING
    rig.call(lambda: rig.table.apply(TunnelFeed(1, full=True, tunnels=ROUTES)))
    return rig
