"""A child process that is started again whenever it ends, until it is told to stop."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

_RESTART_DELAYS_S: Final = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
_STABLE_AFTER_S: Final = 30.0
"""A child that lived this long ended for a new reason: begin again with the shortest delay."""
EXIT_HOPELESS: Final = 78
"""A child's way to say that starting it again cannot help: a setting, or this host, must change (EX_CONFIG)."""
STOP_WAIT_S: Final = 10.0
"""How long a child may take to stop in good order; then it is killed. Nothing is lost by that, only later."""


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """What to run: a module of ours, its arguments, the descriptors it inherits, and its environment."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    descriptors: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def command(self) -> Sequence[str]:
        """The argument list; the child ends with the process named by ``--parent``."""
        return (sys.executable, "-m", self.module, "--parent", str(os.getpid()), *self.arguments)


class Child:
    """One child and its successors. Belongs to the main thread, because the kernel ends a child with its thread."""

    def __init__(self, plan: ChildPlan) -> None:
        self._plan = plan
        self._process: asyncio.subprocess.Process | None = None
        self._is_starting = False
        self._log = structlog.get_logger("supervisor")
        self.endings = 0
        """How many of them have ended."""
        self.is_hopeless = False
        """The last one said that it cannot run with these settings on this host."""

    @property
    def name(self) -> str:
        """What it is called in logs."""
        return self._plan.name

    def may_be(self, pid: int) -> bool:
        """Whether ``pid`` is the child that lives now, as far as that is known while one is being started."""
        process = self._process
        return self._is_starting or (process is not None and process.returncode is None and process.pid == pid)

    async def run(self) -> None:
        """Keep it running until cancelled; it is stopped then."""
        loop = asyncio.get_running_loop()
        failures = 0
        try:
            while True:
                await asyncio.sleep(_RESTART_DELAYS_S[min(failures, len(_RESTART_DELAYS_S) - 1)])
                started_s = loop.time()
                status = await self._live_once()
                failures = 1 if loop.time() - started_s > _STABLE_AFTER_S else failures + 1
                self.endings += 1
                self.is_hopeless = status == EXIT_HOPELESS
                self._log.error("child_ended", child=self._plan.name, status=status)
        finally:
            await self._stop()

    async def _live_once(self) -> int:
        self._is_starting = True
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._plan.command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr,  # standard output belongs to the supervisor's own lines
                pass_fds=self._plan.descriptors,
                env=dict(self._plan.environment),
                start_new_session=True,  # a Ctrl-C at the terminal is the supervisor's to pass on
            )
        except OSError as error:
            # Neither memory nor a process to be had: not for ever, and the other children live.
            self._log.warning("child_not_started", child=self._plan.name, error=str(error))
            return os.EX_OSERR
        finally:
            self._is_starting = False
        self._log.info("child_started", child=self._plan.name, pid=self._process.pid)
        return await self._process.wait()

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_WAIT_S):
                await process.wait()
        except TimeoutError:
            self._log.error("child_killed", child=self._plan.name)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
