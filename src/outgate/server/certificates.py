"""The certificate of the tunnel front: the operator's, or one made here by a local authority.

The authority is constrained by name (RFC 5280 §4.2.1.10): whoever trusts it trusts it for the installation's own
domain and for nothing else, so that its key, should it ever leak, is worth no other site.
"""

import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from outgate import clock
from outgate.errors import SettingError
from outgate.front.tls import TlsContexts, load_contexts
from outgate.model.names import DomainName
from outgate.runtime.stock import TrustedAuthority
from outgate.settings import Settings, variable_of

AUTHORITY_DAYS: Final = 3650
CERTIFICATE_DAYS: Final = 397
"""Some clients refuse server certificates that are valid for longer (398 days)."""
RENEW_BEFORE_DAYS: Final = 60
_CLOCK_SKEW: Final = timedelta(days=1)

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What the front serves with. ``authority`` is whom to trust for it; None for an operator's certificate."""

    certificate: Path
    key: Path
    authority: Path | None


@dataclass(frozen=True, slots=True)
class TlsNames:
    """The names that the front serves, out of the tunnel domain."""

    tunnel_domain: str

    @property
    def domain(self) -> str:
        """The domain that tunnels and the API share: clients make their names out of it."""
        return self.tunnel_domain.removeprefix("tunnel.")

    @property
    def api(self) -> str:
        """The API's own name."""
        return f"api.{self.domain}"

    @property
    def ssh(self) -> str:
        """The SSH server's own name, for clients that reach it by TLS."""
        return f"ssh.{self.domain}"

    def all(self) -> tuple[str, ...]:
        """Every name of the certificate."""
        return (self.api, self.ssh, self.tunnel_domain, f"*.{self.tunnel_domain}")


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: Key


def ensure_tls_files(settings: Settings, tunnel_domain: str, now_ms: int) -> TlsFiles:
    """The operator's files, or those of the local authority: made if there are none, renewed before they end.

    Raises :class:`SettingError` and OSError.
    """
    given = (settings.tls_certificate, settings.tls_key)
    if given[0] is not None and given[1] is not None:
        return TlsFiles(given[0], given[1], None)
    if given != (None, None):
        raise SettingError(f"Set both {variable_of('tls_certificate')} and {variable_of('tls_key')}, or neither.")
    return make_tls_files(settings, tunnel_domain, now_ms)


def make_tls_files(settings: Settings, tunnel_domain: str, now_ms: int, *, is_renewal: bool = False) -> TlsFiles:
    """The local authority's files; ``is_renewal`` makes the certificate (not the authority) anew in any case."""
    directory, names = settings.tls_dir, TlsNames(tunnel_domain.lower().removesuffix("."))
    now = datetime.fromtimestamp(now_ms // 1000, UTC)
    directory.mkdir(mode=0o755, exist_ok=True)
    directory.chmod(0o755)  # everybody may read the authority's certificate: it is there to be trusted
    files = TlsFiles(directory / "certificate.pem", directory / "key.pem", directory / "ca.pem")
    authority = _read_pair(directory / "ca.pem", directory / "ca-key.pem")
    if authority is None or not _is_good(authority.certificate, now, (names.domain,)):
        authority = _make_authority(names, now)
        _write_pair(directory / "ca.pem", directory / "ca-key.pem", authority)
    served = _read_pair(files.certificate, files.key)
    is_usable = served is not None and _is_good(served.certificate, now, names.all()) and _is_of(served, authority)
    if is_renewal or not is_usable:
        _write_pair(files.certificate, files.key, _make_certificate(names, authority, now))
    return files


@dataclass(frozen=True, slots=True)
class DescribedCertificate:
    """What people want to know of a certificate."""

    names: tuple[str, ...]
    not_after: datetime


def describe_certificate(path: Path) -> DescribedCertificate:
    """The first certificate in a PEM file. Raises :class:`SettingError`."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingError(f"{path} holds no certificate that can be read: {error}.") from error
    return DescribedCertificate(_names_of(certificate), certificate.not_valid_after_utc)


def read_authority(settings: Settings) -> TrustedAuthority | None:
    """The local authority for devboxes to trust; None where tunnels are off or the operator's certificate serves."""
    if settings.tunnel_domain is None or settings.tls_certificate is not None:
        return None
    try:
        certificate = (settings.tls_dir / "ca.pem").read_bytes()
        name = x509.load_pem_x509_certificate(certificate).subject
    except (OSError, ValueError):
        return None
    return TrustedAuthority(certificate, f"{_hash_name(name)}.0")


def _hash_name(name: x509.Name) -> str:
    """The hash by which OpenSSL finds a subject: SHA-1 over the name in lower case, without its outer sequence.

    (X509_NAME_hash(3). For names like the local authority's, of one common name without odd spaces.)
    """
    (common_name,) = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    value = str(common_name.value).lower().encode()
    attribute = _der(0x30, _COMMON_NAME_DER + _der(0x0C, value))  # SEQUENCE of the OID and a UTF8String
    digest = hashlib.sha1(_der(0x31, attribute), usedforsecurity=False).digest()
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


def _der(tag: int, content: bytes) -> bytes:
    """One DER element of less than 128 bytes (X.690 §8.1.3.4)."""
    return bytes((tag, len(content))) + content


_COMMON_NAME_DER: Final = bytes.fromhex("0603550403")  # 2.5.4.3


def _is_good(certificate: x509.Certificate, now: datetime, names: tuple[str, ...]) -> bool:
    """Whether it is for these names and valid for long enough."""
    if certificate.not_valid_after_utc - now < timedelta(days=RENEW_BEFORE_DAYS):
        return False
    return _names_of(certificate) == names


def _names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names a certificate is for, or, if it is an authority's, may sign for."""
    with contextlib.suppress(x509.ExtensionNotFound):
        permitted = certificate.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
        return tuple(str(tree.value) for tree in permitted if isinstance(tree, x509.DNSName))
    with contextlib.suppress(x509.ExtensionNotFound):
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return tuple(extension.value.get_values_for_type(x509.DNSName))
    return ()


def _is_of(served: _Pair, authority: _Pair) -> bool:
    try:
        served.certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _make_authority(names: TlsNames, now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"Outgate {names.domain} {secrets.token_hex(4)}"[:64])]
    )
    everywhere = [x509.IPAddress(ip_network(text)) for text in ("0.0.0.0/0", "::/0")]
    builder = (
        _begin(subject, subject, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName(names.domain)], everywhere), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _Pair(builder.sign(key, SHA256()), key)


def _make_certificate(names: TlsNames, authority: _Pair, now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Outgate tunnels")])
    of_authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _begin(subject, authority.certificate.subject, key.public_key(), now, CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names.all()]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(of_authority, critical=False)
    )
    return _Pair(builder.sign(authority.key, SHA256()), key)


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _read_pair(certificate: Path, key: Path) -> _Pair | None:
    """What is there, if it can be used."""
    try:
        read = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None
    if not isinstance(private, Key) or private.public_key() != read.public_key():
        return None
    return _Pair(read, private)


def _write_pair(certificate: Path, key: Path, pair: _Pair) -> None:
    # The key first: a certificate without its key would be worse than the pair that was there before.
    private = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _replace(key, private, 0o600)
    _replace(certificate, pair.certificate.public_bytes(Encoding.PEM), 0o644)


def _replace(path: Path, content: bytes, mode: int) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    draft.replace(path)


def load_tls(settings: Settings, domain: DomainName) -> TlsContexts:
    """What the front serves with. Raises :class:`SettingError` and OSError."""
    files = ensure_tls_files(settings, domain, clock.wall_ms())
    names = TlsNames(domain)
    return load_contexts(files.certificate, files.key, names.api, names.ssh)
