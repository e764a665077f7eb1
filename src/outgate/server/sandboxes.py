"""The sandbox runtime of this installation, as its settings have it."""

from outgate.runtime.engine import EngineKind, find_engine
from outgate.runtime.oci import OciRuntime, OciSettings
from outgate.server.certificates import read_authority
from outgate.settings import Settings


def open_runtime(settings: Settings) -> OciRuntime:
    """The sandboxes of this host. Raises :class:`HostNotCapableError`; call ``prepare`` before anything else."""
    run_dir = settings.run_dir / "runtime"
    engine = find_engine(EngineKind(settings.runtime.value), run_dir / settings.runtime.value)
    authority = read_authority(settings)
    return OciRuntime(OciSettings(engine, settings.runtime_dir, run_dir, settings.instance_id, authority))
