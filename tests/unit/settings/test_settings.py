"""Settings: what is read, what is refused and how the refusal reads."""

import os
import re
from pathlib import Path

import pytest

from outgate.errors import SettingError
from outgate.settings import Settings, SocketAddress, load_settings, variable_of

DOCS = Path(__file__).parents[3] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("OUTGATE_")]:
        monkeypatch.delenv(variable)


def test_defaults() -> None:
    settings = load_settings()
    assert str(settings.listen) == "127.0.0.1:8080"
    assert settings.state_dir == Path("/var/lib/outgate")
    assert settings.default_policy.value == "allow_all"
    assert settings.upstream_dns == ()


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("LISTEN", "8080", "is '8080'; write ADDRESS:PORT, for example 127.0.0.1:8080 or [::1]:8080."),
        ("LISTEN", "localhost:80", "is 'localhost:80'; write ADDRESS:PORT, for example 127.0.0.1:8080 or [::1]:8080."),
        ("LISTEN", "127.0.0.1:0", "is '127.0.0.1:0'; write ADDRESS:PORT, for example 127.0.0.1:8080 or [::1]:8080."),
        ("LISTEN", "127.0.0.1:70000", "is '127.0.0.1:70000'; write ADDRESS:PORT"),
        ("DEFAULT_POLICY", "open", "is 'open'; write allow_all or deny_all."),
        ("POLICIES_MAX", "0", "is '0'; write a number from 1 to 10000."),
        ("POLICIES_MAX", "many", "is 'many'; write a number from 1 to 10000."),
        ("ENFORCE_WAIT_S", "-1", "is '-1'; write a number from 0 to 25."),
        ("ENFORCE_WAIT_S", "nan", "is 'nan'; write a number from 0 to 25."),
        ("UPSTREAM_DNS", "dns.example", "write addresses with commas between them"),
        ("UPSTREAM_DNS", "192.0.2.1,192.0.2.1:99999", "write addresses with commas between them"),
        ("DENIED_ANSWER", "drop", "is 'drop'; write nxdomain or refused."),
        ("ADDRESS_BOUND", "perhaps", "is 'perhaps'; write true or false."),
        ("DEVBOX_NETWORK4", "10.0.0.1/20", "write a private IPv4 network of /26 or larger"),
        ("DEVBOX_NETWORK4", "8.8.8.0/24", "write a private IPv4 network of /26 or larger"),
        ("DEVBOX_NETWORK4", "10.0.0.0/27", "write a private IPv4 network of /26 or larger"),
        ("FLOWS_PER_DEVBOX", "1", "write a number from 16 to 65536"),
        ("RUNTIME", "docker", "is 'docker'; write runc, crun or runsc."),
        ("GATES", "2", "is '2'; write 1."),
        ("LOG_LEVEL", "loud", "is 'loud'; write debug, info, warning or error."),
        ("LOG_FORMAT", "xml", "is 'xml'; write json or console."),
    ],
)
def test_a_bad_value_is_refused_with_its_variable_and_what_to_write(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, message: str
) -> None:
    monkeypatch.setenv("OUTGATE_" + variable, text)
    with pytest.raises(SettingError) as refused:
        load_settings()
    assert refused.value.message.startswith(f"OUTGATE_{variable} ")
    assert message in refused.value.message


def test_secrets_are_neither_shown_nor_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTGATE_API_KEY", "too-short")
    with pytest.raises(SettingError) as refused:
        load_settings()
    assert refused.value.message == "OUTGATE_API_KEY has a value it cannot have; write at least 16 characters."
    monkeypatch.setenv("OUTGATE_API_KEY", "secret-secret-secret")
    monkeypatch.setenv("OUTGATE_DATABASE_URL", "postgresql+psycopg://outgate:hunter2@db/outgate")
    settings = load_settings()
    assert "secret-secret" not in repr(settings) + str(settings)
    assert "hunter2" not in repr(settings) + str(settings)
    assert settings.store_url == "postgresql+psycopg://outgate:hunter2@db/outgate"


def test_a_misspelled_setting_is_refused_and_a_foreign_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTGATE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("OUTGATE_PORT_8080_TCP", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("OUTGATE_URL", "http://127.0.0.1:8080")
    load_settings()
    monkeypatch.setenv("OUTGATE_DEFAULT_POLCY", "deny_all")
    with pytest.raises(SettingError, match="did you mean OUTGATE_DEFAULT_POLICY"):
        load_settings()


def test_lists_and_resolvers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTGATE_INTERNAL_ZONES", " corp.example , lan.example,")
    monkeypatch.setenv("OUTGATE_UPSTREAM_DNS", "192.0.2.1, 192.0.2.2:5353,2001:db8::1,[2001:db8::2]:54")
    settings = load_settings()
    assert settings.internal_zones == ("corp.example", "lan.example")
    assert settings.upstream_dns == (
        SocketAddress("192.0.2.1", 53),
        SocketAddress("192.0.2.2", 5353),
        SocketAddress("2001:db8::1", 53),
        SocketAddress("2001:db8::2", 54),
    )


def test_what_is_given_wins_over_the_environment_and_empty_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTGATE_LISTEN", "127.0.0.1:9000")
    monkeypatch.setenv("OUTGATE_RUNTIME", "")
    assert load_settings(listen="[::1]:9001", state_dir=None).listen == SocketAddress("::1", 9001)
    assert load_settings().listen == SocketAddress("127.0.0.1", 9000)
    assert load_settings().runtime.value == "runc"


def test_no_env_file_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OUTGATE_DEFAULT_POLICY=deny_all\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings().default_policy.value == "allow_all"


def test_instances_are_apart_by_their_real_state_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    one, same, other = (load_settings(state_dir=tmp_path / name) for name in ("a", "link", "b"))
    assert one.instance_id == same.instance_id != other.instance_id
    assert re.fullmatch(r"[0-9a-f]{6}", one.instance_id)
    assert one.run_dir == Path("/run/outgate") / one.instance_id


def test_every_setting_is_documented_as_it_is() -> None:
    rows = re.findall(r"^\| `(OUTGATE_\w+)` \| (.*?) \| (.*) \|$", DOCS.read_text("utf-8"), re.MULTILINE)
    assert rows == [
        (variable_of(name), _shown(field.default), _text(field.description, field.json_schema_extra))
        for name, field in Settings.model_fields.items()
    ]


def _shown(default: object) -> str:
    if default is None or default == ():
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _text(description: str | None, extra: object) -> str:
    assert isinstance(extra, dict)
    return f"{description} Write {extra['write']}."
