"""``python -m fuzz``: every target for FUZZ_SECONDS (60), one after the other, or those that are named.

``seed`` writes the inputs that the corpora begin with; ``keep`` adds to the corpora what earlier runs found of use,
few and short ones. Finds are left in ``build/fuzz/finds``.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fuzz.corpus import CORPUS, add_to_corpus
from fuzz.registry import TARGETS
from fuzz.seeds import make_seeds
from fuzz.target import Target

_ROOT: Final = Path(__file__).parents[2]
_WORK: Final = _ROOT / "build" / "fuzz"
_FINDS: Final = _WORK / "finds"
_INPUT_S_MAX: Final = 5
"""For one input, on a slow machine under instrumentation. Work that grows faster than its input is a find."""
_MEMORY_MIB_MAX: Final = 1024
_KEPT_MAX: Final = 30
"""Inputs that one run adds to a corpus, the shortest ones."""


def main(arguments: list[str]) -> int:
    """The exit status: 1 when something was found."""
    match arguments:
        case ["seed"]:
            _write_seeds()
            return 0
        case ["keep", *names]:
            for target in TARGETS:
                if not names or target.name in names:
                    _keep(target)
            return 0
    chosen = [target for target in TARGETS if not arguments or target.name in arguments]
    skipped = [target.name for target in chosen if target.needs_root and os.geteuid() != 0]
    found = [target.name for target in chosen if target.name not in skipped and not _fuzz(target)]
    for name in skipped:
        print(f"{name}: not run, it needs root")
    print(f"finds: {', '.join(found)} (see {_FINDS})" if found else "no finds")
    return 1 if found else 0


def _fuzz(target: Target) -> bool:
    """Whether nothing was found."""
    seconds = int(os.environ.get("FUZZ_SECONDS", "60"))
    work = _WORK / target.name
    work.mkdir(parents=True, exist_ok=True)
    _FINDS.mkdir(exist_ok=True)
    log = _WORK / f"{target.name}.log"
    with log.open("wb") as said:
        status = _run(
            target,
            [
                f"-max_total_time={seconds}",
                f"-max_len={target.bytes_max}",
                f"-timeout={_INPUT_S_MAX}",
                f"-rss_limit_mb={_MEMORY_MIB_MAX}",
                f"-artifact_prefix={_FINDS}/{target.name}-",
                "-print_final_stats=1",
                str(work),
                str(CORPUS / target.name),
            ],
            said.fileno(),
        )
    lines = log.read_text(errors="replace").splitlines()
    runs = next((line.split()[-1] for line in lines if line.startswith("stat::number_of_executed_units")), "?")
    print(f"{target.name:16} {runs:>10} inputs  {'ok' if status == 0 else f'FOUND SOMETHING, see {log}'}", flush=True)
    return status == 0


def _keep(target: Target) -> None:
    with TemporaryDirectory() as merged:
        arguments = ["-set_cover_merge=1", f"-max_len={target.bytes_max}", merged, str(_WORK / target.name)]
        _run(target, [*arguments, str(CORPUS / target.name)], subprocess.DEVNULL)
        inputs = [file.read_bytes() for file in Path(merged).iterdir()]
    for data in sorted(inputs, key=lambda each: (len(each), each))[:_KEPT_MAX]:
        add_to_corpus(target.name, data)


def _run(target: Target, arguments: list[str], output: int) -> int:
    command = [sys.executable, "-m", "fuzz.engine", target.name, *arguments]
    # The engine ends without tidying up. Thousands of small files are no work for a disk.
    with TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as scratch:
        environment = {**os.environ, "PYTHONPATH": str(_ROOT / "tests"), "TMPDIR": scratch}
        return subprocess.run(command, env=environment, stdout=output, stderr=output, cwd=_WORK, check=False).returncode


def _write_seeds() -> None:
    for name, inputs in make_seeds().items():
        for data in inputs:
            add_to_corpus(name, data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
