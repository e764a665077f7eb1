"""The agent's part that makes records of kernel flows, alone in a process: `python -m bench.recorder`, in a router namespace."""

import asyncio
import logging
import sys

import structlog

from bench.packets import layout_of_bench, state_of_bench
from outgate.agent.flow_owners import FlowOwners
from outgate.agent.flowlog import FlowLog
from outgate.agent.kernel_flows import KernelFlows
from outgate.agent.prepared import PreparedDocuments
from outgate.agent.target import EnforcedPolicy, Placement, Target
from outgate.dataplane.conntrack_events import FlowEventReader
from outgate.model.desired import CidrDocument, FlowBatch, PolicyDocument
from outgate.model.flow import HostContext


class Nowhere:
    """A store that takes everything at once."""

    async def store_flows(self, batch: FlowBatch) -> None:  # noqa: ARG002 - a sink's shape
        await asyncio.sleep(0)


async def record(rules: str) -> None:
    """Record until standard input ends, then say what was read and lost."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    layout, state = layout_of_bench(), state_of_bench(1)
    log = FlowLog(Nowhere(), "bench")
    context = HostContext()
    flows = KernelFlows(FlowOwners(layout, PreparedDocuments(context), context), log)
    (plan,) = state.plans.values()
    (grant,) = plan.live
    document = PolicyDocument("npol_1", "bench", plan.number, 1, allowed_cidrs=(CidrDocument(rules, grant),))
    placements = {name: Placement(name, "acc_1", document.id, link.slot) for name, link in state.devboxes.items()}
    flows.learn(Target(1, {document.id: EnforcedPolicy(document, plan)}, placements))
    flows.listen(FlowEventReader())
    sending = asyncio.create_task(log.run())
    print("recording", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(f"{flows.events} {flows.dropped}", flush=True)
    flows.stop()
    sending.cancel()


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1]))
