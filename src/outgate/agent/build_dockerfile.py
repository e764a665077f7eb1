"""Building a Dockerfile in a builder: buildah's command line, and what it is given to read.

Everything that the build does happens in the builder, a sandbox like any other: as its root, who is nobody on the
host, in its network namespace, under its policy, within its limits. Nothing is pulled: ``FROM`` finds the images of
this host (:mod:`outgate.runtime.build_bases`).
"""

import re
from collections.abc import Mapping
from shlex import quote
from typing import Final

from outgate.runtime.build_images import RESULT_NAME
from outgate.runtime.build_stage import BUILD_ROOT, configuration_path

DOCKERFILE: Final = BUILD_ROOT / "Dockerfile"
CONTEXT: Final = BUILD_ROOT / "context"
SECRETS: Final = BUILD_ROOT / "secrets"
SCRIPT: Final = BUILD_ROOT / "build.sh"

MISSING: Final = "This host cannot build Dockerfiles: buildah is missing; install it there: apt-get install buildah"
_ENVIRONMENT: Final = {
    "HOME": "/root",
    "TMPDIR": str(BUILD_ROOT / "scratch"),
    "CONTAINERS_CONF": str(configuration_path("containers.conf")),
    "CONTAINERS_REGISTRIES_CONF": str(configuration_path("registries.conf")),
    "CONTAINERS_STORAGE_CONF": str(configuration_path("storage.conf")),
    # The sandbox's user namespace is the one to build in; buildah need not make another.
    "_CONTAINERS_USERNS_CONFIGURED": "1",
}
_ERROR: Final = "Error: "
_REASON_LENGTH_MAX: Final = 1000
_UNKNOWN_IMAGE: Final = re.compile(r"(?:^|[ \"])([^\s\"]+): image not known", re.ASCII)

PREPARE_SCRIPT: Final = f"mkdir -p {CONTEXT} {SECRETS} {BUILD_ROOT}/scratch && chmod 700 {SECRETS}"
UNPACK_CONTEXT_SCRIPT: Final = f"exec 2>&1; tar -x -z --no-same-owner -f - -C {CONTEXT}"
RUN_SCRIPT: Final = f"exec 2>&1; exec /bin/sh {SCRIPT}"


def render_script(build_args: Mapping[str, str], secrets: Mapping[str, str]) -> str:
    """The shell script that builds. Secrets are named here, and read from their files."""
    words = [
        "buildah",
        "build",
        f"--signature-policy={configuration_path('policy.json')}",
        "--isolation=chroot",
        "--network=host",  # the builder's own, that is
        "--pull-never",
        "--layers=false",
        "--format=oci",
        f"--tag={RESULT_NAME}",
        *(f"--build-arg={name}={value}" for name, value in build_args.items()),
        *(f"--secret=id={name},src={SECRETS / name}" for name in secrets),
        f"--file={DOCKERFILE}",
        str(CONTEXT),
    ]
    exports = "".join(f"export {name}={quote(value)}\n" for name, value in _ENVIRONMENT.items())
    check = f"command -v buildah >/dev/null || {{ echo {quote(MISSING)}; exit 127; }}\n"
    # The image is named when the last stage is committed. What fails after that is the removal of an earlier stage's
    # image, which buildah tries even for a stage that is one of the host's read-only images and nothing else.
    has_image = f"buildah inspect --type=image {RESULT_NAME} >/dev/null 2>&1"
    command = f"{' '.join(map(quote, words))} && exit\nstatus=$?\n{has_image} || exit $status\n"
    return f"{exports}{check}{command}"


def find_reason(line: str) -> str | None:
    """Why the build failed, if ``line`` of its output says so; with a remedy where the Dockerfile is not to blame."""
    if line == MISSING:
        return MISSING
    match = _UNKNOWN_IMAGE.search(line)
    if match is None:
        return line.removeprefix(_ERROR)[:_REASON_LENGTH_MAX] if line.startswith(_ERROR) else None
    name = match[1][:200]
    return (
        f"There is no image {name} on this host, and builds pull none from a registry. Give it one there: "
        f"outgate image import PATH --name {name}, or outgate image alias {name} IMAGE (stock, say)."
    )
