"""The local authority: what it signs, for whom it is worth anything, when it is made anew."""

import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from outgate.clock import wall_ms
from outgate.errors import SettingError
from outgate.front.tls import load_contexts
from outgate.server.certificates import (
    AUTHORITY_DAYS,
    CERTIFICATE_DAYS,
    RENEW_BEFORE_DAYS,
    TlsNames,
    describe_certificate,
    ensure_tls_files,
    make_tls_files,
    read_authority,
)
from outgate.settings import Settings

DOMAIN = "tunnel.example.com"
DAY_MS = 24 * 3600 * 1000


def settings(directory: Path, *, tls_certificate: Path | None = None, tls_key: Path | None = None) -> Settings:
    return Settings(state_dir=directory, tunnel_domain=DOMAIN, tls_certificate=tls_certificate, tls_key=tls_key)


def openssl(*arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def test_names_follow_from_the_tunnel_domain() -> None:
    assert TlsNames(DOMAIN).all() == ("api.example.com", "ssh.example.com", DOMAIN, f"*.{DOMAIN}")
    assert TlsNames("boxes.example.com").api == "api.boxes.example.com"


def test_what_is_made_holds_and_is_kept(tmp_path: Path) -> None:
    made = make_tls_files(settings(tmp_path), DOMAIN, wall_ms())
    assert made.authority is not None
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "tls").iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600, "certificate.pem": 0o644, "key.pem": 0o600}
    assert describe_certificate(made.certificate).names == TlsNames(DOMAIN).all()
    for name in ("api.example.com", f"3000-abc.{DOMAIN}"):
        openssl(
            "verify", "-x509_strict", "-CAfile", str(made.authority), "-verify_hostname", name, str(made.certificate)
        )
    load_contexts(made.certificate, made.key, "api.example.com")
    before = {path.name: path.read_bytes() for path in (tmp_path / "tls").iterdir()}
    assert ensure_tls_files(settings(tmp_path), DOMAIN, wall_ms()) == made
    assert {path.name: path.read_bytes() for path in (tmp_path / "tls").iterdir()} == before


def test_the_authority_may_sign_for_its_domain_alone(tmp_path: Path) -> None:
    make_tls_files(settings(tmp_path), DOMAIN, wall_ms())
    tls = tmp_path / "tls"
    request = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"]
    for name in ("DNS:github.com", "DNS:example.com.evil.net", "IP:192.0.2.1"):
        openssl(
            "req", *request, "-keyout", str(tls / "k"), "-x509", "-days", "9", "-addext", f"subjectAltName={name}",
            "-CA", str(tls / "ca.pem"), "-CAkey", str(tls / "ca-key.pem"), "-out", str(tls / "forged.pem"),
        )  # fmt: skip
        done = subprocess.run(
            ["openssl", "verify", "-CAfile", str(tls / "ca.pem"), str(tls / "forged.pem")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert "subtree violation" in done.stderr


def test_openssl_finds_it_by_its_hash(tmp_path: Path) -> None:
    made = make_tls_files(settings(tmp_path), DOMAIN, wall_ms())
    authority = read_authority(settings(tmp_path))
    assert authority is not None
    assert authority.hash_name == openssl("x509", "-hash", "-noout", "-in", str(made.authority)) + ".0"
    directory = tmp_path / "trusted"
    directory.mkdir()
    (directory / authority.hash_name).write_bytes(authority.certificate)
    openssl("verify", "-no-CAfile", "-CApath", str(directory), str(made.certificate))


def test_certificates_are_renewed_in_time_and_the_authority_stays(tmp_path: Path) -> None:
    now_ms = wall_ms()
    made = make_tls_files(settings(tmp_path), DOMAIN, now_ms)
    assert made.authority is not None
    certificate, authority = made.certificate.read_bytes(), made.authority.read_bytes()
    make_tls_files(settings(tmp_path), DOMAIN, now_ms + (CERTIFICATE_DAYS - RENEW_BEFORE_DAYS - 1) * DAY_MS)
    assert made.certificate.read_bytes() == certificate
    make_tls_files(settings(tmp_path), DOMAIN, now_ms + (CERTIFICATE_DAYS - RENEW_BEFORE_DAYS + 1) * DAY_MS)
    assert made.certificate.read_bytes() != certificate
    assert made.authority.read_bytes() == authority
    make_tls_files(settings(tmp_path), DOMAIN, now_ms + (AUTHORITY_DAYS - RENEW_BEFORE_DAYS + 1) * DAY_MS)
    assert made.authority.read_bytes() != authority


@pytest.mark.parametrize("broken", ["ca.pem", "ca-key.pem", "certificate.pem", "key.pem"])
def test_what_is_damaged_is_made_anew(tmp_path: Path, broken: str) -> None:
    made = make_tls_files(settings(tmp_path), DOMAIN, wall_ms())
    (tmp_path / "tls" / broken).write_text("nonsense")
    make_tls_files(settings(tmp_path), DOMAIN, wall_ms())
    openssl("verify", "-CAfile", str(made.authority), str(made.certificate))
    load_contexts(made.certificate, made.key, "api.example.com")


def test_another_domain_needs_another_authority(tmp_path: Path) -> None:
    made = make_tls_files(settings(tmp_path), DOMAIN, wall_ms())
    make_tls_files(settings(tmp_path), "tunnel.example.org", wall_ms())
    assert describe_certificate(made.certificate).names == TlsNames("tunnel.example.org").all()
    openssl("verify", "-CAfile", str(made.authority), "-verify_hostname", "a.tunnel.example.org", str(made.certificate))


def test_the_operators_files_are_used_as_they_are(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    given = settings(tmp_path, tls_certificate=certificate, tls_key=key)
    files = ensure_tls_files(given, DOMAIN, wall_ms())
    assert (files.certificate, files.key, files.authority) == (certificate, key, None)
    assert not (tmp_path / "tls").exists()
    assert read_authority(given) is None
    with pytest.raises(SettingError, match=r"c\.pem"):
        load_contexts(files.certificate, files.key, "api.example.com")
    with pytest.raises(SettingError, match="OUTGATE_TLS_KEY"):
        ensure_tls_files(settings(tmp_path, tls_certificate=certificate), DOMAIN, wall_ms())


def test_python_trusts_the_chain_strictly(tmp_path: Path) -> None:
    made = make_tls_files(settings(tmp_path), DOMAIN, wall_ms())
    server = load_contexts(made.certificate, made.key, "api.example.com").outside
    client = ssl.create_default_context(cafile=str(made.authority))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname=f"3000-abc.{DOMAIN}")
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(3):
        for end in (asking, serving):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert asking.version() == "TLSv1.3"
