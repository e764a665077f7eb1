"""Settings that are names."""

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from outgate.dataplane.gate_config import host_context as gate_context
from outgate.errors import SettingError
from outgate.server.agent_process import gate_config
from outgate.server.context import api_settings, check_names, find_resolvers, host_context
from outgate.server.endpoint_changes import count_endpoint_changes
from outgate.server.host_network import choose_pool
from outgate.server.identity import find_api_identity, find_front_identity, find_gate_identity
from outgate.settings import load_settings
from support.agent_world import LAYOUT


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("OUTGATE_INTERNAL_ZONES", "corp.example,*.lan.example"),
        ("OUTGATE_AGENT_GATEWAY_HOSTS", "http://gateway.example"),
        ("OUTGATE_MCP_GATEWAY_HOSTS", "*"),
        ("OUTGATE_MIRROR_HOSTS", "10.0.0.1"),
        ("OUTGATE_MIRROR_HOSTS", "mirror.example,10.0.0.1/8"),
        ("OUTGATE_TUNNEL_DOMAIN", "tunnel example"),
        ("OUTGATE_API_KEY", "sixteen and more characters"),
    ],
)
def test_a_name_that_is_none_is_blamed_on_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingError, match=f"^{variable}: "):
        check_names(load_settings())


def test_names_reach_api_and_gate_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTGATE_INTERNAL_ZONES", "Corp.Example.")
    monkeypatch.setenv("OUTGATE_MIRROR_HOSTS", "*.mirror.example,10.9.0.0/16:443")
    monkeypatch.setenv("OUTGATE_ADDRESS_BOUND", "false")
    monkeypatch.setenv("OUTGATE_DEFAULT_POLICY", "deny_all")
    monkeypatch.setenv("OUTGATE_UPSTREAM_DNS", "192.0.2.53,[2001:db8::53]:54")
    monkeypatch.setenv("OUTGATE_DENIED_ANSWER", "refused")
    settings = load_settings()
    context = host_context(settings)
    assert context.internal_zones == ("corp.example",)
    assert api_settings(settings).context == context
    assert api_settings(settings).default_policy.value == "deny_all"
    config = gate_config(settings, LAYOUT)
    assert config.internal_zones == ("Corp.Example.",)
    assert config.mirror_hosts == ("*.mirror.example", "10.9.0.0/16:443")
    assert gate_context(config).mirror_hosts == context.mirror_hosts
    assert gate_context(config).mirror_cidrs == context.mirror_cidrs
    assert [str(rule) for rule in context.mirror_cidrs] == ["10.9.0.0/16 tcp+udp/443"]
    assert config.address_bound is False
    assert config.resolvers == ("192.0.2.53:53", "[2001:db8::53]:54")
    assert config.denied_answer.value == "refused"
    assert config.dns_addresses == (str(LAYOUT.gateway4), str(LAYOUT.gateway6))
    assert config.devbox_networks == (str(LAYOUT.pool4), str(LAYOUT.pool6))


def test_the_hosts_resolvers_are_found(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# written by hand\nsearch example\nnameserver 127.0.0.53\nnameserver\tfe80::1%eth0\n"
        "nameserver nonsense\nnameserver 2001:db8::53 # why\noptions edns0\nnameserver\n"
    )
    assert find_resolvers(load_settings(), file) == ("127.0.0.53:53", "[2001:db8::53]:53")


@pytest.mark.parametrize("text", ["", "search example\n", "nameserver fe80::1%eth0\n"])
def test_no_resolver_is_a_reason_not_to_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(text)
    with pytest.raises(SettingError, match="set OUTGATE_UPSTREAM_DNS"):
        find_resolvers(load_settings(), file)
    with pytest.raises(SettingError, match="set OUTGATE_UPSTREAM_DNS"):
        find_resolvers(load_settings(), tmp_path / "missing")


def test_the_api_never_becomes_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTGATE_API_USER", "root")
    with pytest.raises(SettingError, match="which is root"):
        find_api_identity(load_settings())
    monkeypatch.setenv("OUTGATE_API_USER", "nobody-of-that-name")
    with pytest.raises(SettingError, match="There is no user nobody-of-that-name"):
        find_api_identity(load_settings())
    monkeypatch.delenv("OUTGATE_API_USER")
    assert find_api_identity(load_settings()).uid != 0


def test_the_gate_never_becomes_root_nor_somebody_else_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    uids = {find_api_identity(load_settings()).uid, find_front_identity(load_settings()).uid, 0}
    assert find_gate_identity(load_settings()).uid not in uids
    for user, refusal in (
        ("root", "which is root"),
        ("nobody", "the api's user"),
        ("daemon", "the tunnel front's user"),
    ):
        monkeypatch.setenv("OUTGATE_API_USER", "nobody")
        monkeypatch.setenv("OUTGATE_TUNNEL_USER", "daemon")
        monkeypatch.setenv("OUTGATE_TUNNEL_DOMAIN", "tunnel.example.com")
        monkeypatch.setenv("OUTGATE_GATE_USER", user)
        with pytest.raises(SettingError, match=refusal):
            find_gate_identity(load_settings())


POOL = IPv4Network("10.213.16.0/20")
OTHER = IPv4Network("10.80.0.0/20")


@pytest.mark.parametrize(
    ("stored", "wanted", "expected"),
    [
        (None, None, None),
        (None, OTHER, OTHER),
        (POOL, None, POOL),
        (POOL, IPv4Network("10.213.0.0/16"), POOL),
        (POOL, OTHER, OTHER),
    ],
)
def test_the_pool_stays_as_long_as_the_setting_allows_it(
    stored: IPv4Network | None, wanted: IPv4Network | None, expected: IPv4Network | None
) -> None:
    assert choose_pool(stored, wanted, has_devboxes=False) == expected


def test_a_pool_in_use_is_not_given_up() -> None:
    with pytest.raises(SettingError, match=r"OUTGATE_DEVBOX_NETWORK4 is 10\.80\.0\.0/20, but devboxes"):
        choose_pool(POOL, OTHER, has_devboxes=True)
    assert choose_pool(POOL, None, has_devboxes=True) == POOL


def test_changes_of_the_lists_behind_flags_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def count(hosts: str) -> int:
        monkeypatch.setenv("OUTGATE_MIRROR_HOSTS", hosts)
        return count_endpoint_changes(load_settings(state_dir=tmp_path))

    (tmp_path / "agent").mkdir()
    first = count("a.example")
    assert count("a.example") == first
    assert count("a.example,10.0.0.0/8") == first + 1
    assert count("a.example") == first + 2
    (tmp_path / "agent" / "endpoints.json").write_text("{")
    count("a.example")
    assert count("a.example") == count("a.example")
