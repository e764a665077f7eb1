"""The systemd units: what systemd makes of them, and that they say what the code says."""

import re
import subprocess
from pathlib import Path

import pytest

from outgate.runtime.seccomp import allowed_names
from outgate.server import identity
from outgate.server.capabilities import AGENT_CAPABILITIES, SUPERVISOR_CAPABILITIES
from outgate.settings import Settings, load_settings, variable_of
from support.as_unit import expand_calls, read_unit, refused_calls, words

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "ops" / "systemd"
SERVICES = ("outgate.service", "outgate-api.service", "outgate-agent.service")
KEEPERS = ("outgate.service", "outgate-agent.service")
"""Those that keep network namespaces and devboxes."""
INSTALL = (ROOT / "docs" / "install.md").read_text("utf-8")

# systemd.exec(5): each of these gives a service a mount namespace of its own (or, the last, a host name's).
_OWN_MOUNTS = (
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "ExecPaths",
    "InaccessiblePaths",
    "LogNamespace",
    "MountFlags",
    "MountImages",
    "NoExecPaths",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateNetwork",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RootDirectory",
    "RootImage",
    "TemporaryFileSystem",
    "ProtectHostname",
)
# What devboxes would inherit and cannot do with.
_INHERITED = ("LockPersonality", "MemoryDenyWriteExecute", "RestrictNamespaces", "RestrictSUIDSGID", "UMask")


def _copies(place: Path) -> list[str]:
    """The units as files whose program exists on this machine, too."""
    paths = []
    for name in SERVICES:
        text = (UNITS / name).read_text("utf-8")
        path = place / name
        path.write_text(re.sub(r"^ExecStart=/opt/outgate/bin/outgate", "ExecStart=/bin/true", text, flags=re.MULTILINE))
        paths.append(str(path))
    return paths


def _systemd(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_systemd_has_nothing_to_say_against_them(tmp_path: Path) -> None:
    done = _systemd("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *_copies(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("name", "exposure_max"), [("outgate.service", 70), ("outgate-agent.service", 70), ("outgate-api.service", 30)]
)
def test_they_are_as_hardened_as_they_were(tmp_path: Path, name: str, exposure_max: int) -> None:
    """The scale is systemd's own, from 0 to 100; the two that make sandboxes cannot come far below their bound."""
    _copies(tmp_path)
    done = _systemd(
        "systemd-analyze",
        "security",
        "--offline=true",
        "--no-pager",
        f"--threshold={exposure_max}",
        str(tmp_path / name),
    )
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_users_and_directories_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    made = _systemd("systemd-sysusers", f"--root={tmp_path}", str(UNITS / "outgate.sysusers.conf"))
    assert made.returncode == 0, made.stderr
    users = {line.split(":")[0]: line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()}
    ours = {names[0] for names in (identity._API_USERS, identity._FRONT_USERS, identity._GATE_USERS)}
    assert ours == set(users) - {"root"}
    assert {users[name][6] for name in ours} == {"/usr/sbin/nologin"}
    lines = [line.split() for line in (UNITS / "outgate.tmpfiles.conf").read_text().splitlines() if line[:1] == "d"]
    settings = load_settings()
    assert {line[1] for line in lines} == {str(settings.state_dir), str(settings.run_dir.parent), "/etc/outgate"}
    assert all(line[3:5] == ["root", "root"] for line in lines)


@pytest.mark.parametrize("name", SERVICES)
def test_paths_are_those_of_the_settings_and_of_the_installation_page(name: str) -> None:
    unit, settings = read_unit(UNITS / name), load_settings()
    assert unit["StateDirectory"] == [settings.state_dir.name]
    assert settings.state_dir.parent == Path("/var/lib")
    assert unit["RuntimeDirectory"] == [settings.run_dir.parent.name]
    assert settings.run_dir.parent.parent == Path("/run")
    assert unit["RuntimeDirectoryPreserve"] == ["yes"]
    program, *command = unit["ExecStart"][0].split()
    assert program in INSTALL
    assert command in (["serve"], ["api"], ["agent"])
    for path in unit["EnvironmentFile"]:
        assert path.removeprefix("-") in INSTALL
    assert f"ops/systemd/{name}" in INSTALL


def test_every_setting_that_is_named_exists_and_every_value_is_one() -> None:
    known = {variable_of(field): field for field in Settings.model_fields}
    shown = (UNITS / "outgate.env.example").read_text("utf-8")
    examples = dict(re.findall(r"^#(OUTGATE_\w+)=(.*)$", shown, re.MULTILINE))
    assert set(examples) <= set(known)
    load_settings(**{known[variable]: value for variable, value in examples.items()})
    for name in SERVICES:
        text = (UNITS / name).read_text("utf-8")
        assert set(re.findall(r"OUTGATE_[A-Z_]+", text)) <= set(known)
        assert "Environment" not in read_unit(UNITS / name)  # a setting in a unit would hide that of the file


def test_capabilities_are_those_of_the_code() -> None:
    table = {"outgate.service": SUPERVISOR_CAPABILITIES, "outgate-agent.service": AGENT_CAPABILITIES}
    for name, capabilities in table.items():
        given = words(read_unit(UNITS / name), "CapabilityBoundingSet")
        assert sorted(given) == sorted(f"CAP_{capability.name}" for capability in capabilities)


@pytest.mark.parametrize("name", KEEPERS)
def test_devboxes_outlive_the_service(name: str) -> None:
    unit = read_unit(UNITS / name)
    assert unit["KillMode"] == ["process"]
    assert unit["OOMPolicy"] == ["continue"]
    assert unit["Delegate"] == ["cpu memory pids"]
    assert set(_OWN_MOUNTS) & set(unit) == set()
    assert set(_INHERITED) & set(unit) == set()


@pytest.mark.parametrize("name", KEEPERS)
def test_no_devbox_loses_a_system_call_by_the_services_filter(name: str) -> None:
    refused = refused_calls(read_unit(UNITS / name))
    assert {"clock_settime", "init_module", "reboot", "swapon", "iopl"} <= refused
    assert refused & set(allowed_names()) == set()


def test_what_is_refused_by_default_is_not_what_the_api_needs() -> None:
    allowed = expand_calls(words(read_unit(UNITS / "outgate-api.service"), "SystemCallFilter"))
    assert {"epoll_wait", "setresuid", "capset", "fsync"} <= allowed
    assert {"mount", "ptrace", "bpf", "init_module"} & allowed == set()


def test_the_settings_of_both_keepers_are_alike() -> None:
    whole, agent = (dict(read_unit(UNITS / name)) for name in KEEPERS)
    for unit in (whole, agent):
        del unit["ExecStart"], unit["CapabilityBoundingSet"]
    assert whole == agent
