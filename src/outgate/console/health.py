"""Is everything enforced? Each host, what is wanted of it and what it enforces, and what to do about warnings."""

from starlette.responses import Response

from outgate.console.advice import find_advice
from outgate.console.visits import Visit
from outgate.control.health import observe_health


async def show_health(visit: Visit) -> Response:
    """All hosts. Like /healthz it is for everybody: it says nothing of accounts."""
    overview = await observe_health(visit.services, visit.now_ms)
    return await visit.page("health.html", overview=overview, find_advice=find_advice)
