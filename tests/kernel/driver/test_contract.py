import pytest

from outgate.dataplane.driver import Driver
from support.driver_contract import DriverContract
from support.driver_world import World

pytestmark = pytest.mark.kernel


class TestLinuxDriver(DriverContract):
    @pytest.fixture
    def driver(self, world: World) -> Driver:
        return world.driver()
