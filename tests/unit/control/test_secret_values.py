"""Sealing, signing, and the key file."""

import base64
from pathlib import Path

import pytest

from outgate.control.errors import ForbiddenError
from outgate.control.object_tickets import ObjectTicket, TransferKind, check_ticket, make_ticket
from outgate.control.secret_values import KEY_BYTES, KeyRing, SealedValueError, make_key_file, read_key_file
from outgate.errors import SettingError

SECRET = bytes(range(KEY_BYTES))


def test_a_value_comes_back_for_its_owner_and_under_its_key_only() -> None:
    keys = KeyRing(SECRET)
    sealed = keys.seal("välue", "acct_1/sec_1")
    assert b"v\xc3\xa4lue" not in sealed
    assert KeyRing(SECRET).open(sealed, "acct_1/sec_1") == "välue"
    assert keys.seal("välue", "acct_1/sec_1") != sealed
    for broken in (sealed[:-1], bytes([sealed[0] ^ 1]) + sealed[1:], sealed[:-1] + bytes([sealed[-1] ^ 1]), b"", b"x"):
        with pytest.raises(SealedValueError, match="acct_1/sec_1"):
            keys.open(broken, "acct_1/sec_1")
    with pytest.raises(SealedValueError):
        keys.open(sealed, "acct_1/sec_2")
    with pytest.raises(SealedValueError):
        KeyRing.generate().open(sealed, "acct_1/sec_1")


def test_what_keys_show_of_themselves() -> None:
    keys = KeyRing(SECRET)
    assert KeyRing(SECRET).fingerprint == keys.fingerprint != KeyRing.generate().fingerprint
    assert SECRET.hex()[:16] not in repr(keys) + keys.fingerprint
    with pytest.raises(ValueError, match="32 bytes"):
        KeyRing(b"short")


def test_signatures_tell_lists_apart() -> None:
    keys = KeyRing(SECRET)
    made = {keys.sign(*parts) for parts in (("a", "b"), ("ab",), ("a", "", "b"), ("b", "a"), ("a,b",), ())}
    assert len(made) == 6
    assert keys.sign("a", "b") == KeyRing(SECRET).sign("a", "b")


def test_a_ticket_is_for_one_thing_and_a_while() -> None:
    keys = KeyRing(SECRET)
    ticket = make_ticket(keys, TransferKind.UPLOAD, "obj_1", 1000)
    check_ticket(keys, ticket, 999)
    changed = (
        ObjectTicket(TransferKind.DOWNLOAD, "obj_1", 1000, ticket.signature),
        ObjectTicket(TransferKind.UPLOAD, "obj_2", 1000, ticket.signature),
        ObjectTicket(TransferKind.UPLOAD, "obj_1", 1001, ticket.signature),
        ObjectTicket(TransferKind.UPLOAD, "obj_1", 1000, ticket.signature[:-2]),
        ObjectTicket(TransferKind.UPLOAD, "obj_1", 1000, ""),
        ObjectTicket(TransferKind.UPLOAD, "obj_1", 1000, "ä"),
    )
    for other in changed:
        with pytest.raises(ForbiddenError, match="not valid"):
            check_ticket(keys, other, 0)
    with pytest.raises(ForbiddenError, match="expired"):
        check_ticket(keys, ticket, 1000)
    with pytest.raises(ForbiddenError, match="not valid"):
        check_ticket(KeyRing.generate(), ticket, 0)


def test_a_key_file_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "secret-key"
    assert read_key_file(path) is None
    made = make_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert make_key_file(path).fingerprint == made.fingerprint
    again = read_key_file(path)
    assert again is not None
    assert again.fingerprint == made.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret-key"]


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        (base64.b64encode(SECRET), 0o640, "may be read by others"),
        (base64.b64encode(SECRET), 0o604, "may be read by others"),
        (base64.b64encode(SECRET[:-1]), 0o600, "holds no key"),
        (b"", 0o600, "holds no key"),
        (b"\xff" * 44, 0o600, "holds no key"),
        (base64.b64encode(SECRET) * 30, 0o600, "holds no key"),
    ],
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes, mode: int, complaint: str) -> None:
    path = tmp_path / "secret-key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(SettingError, match=complaint):
        read_key_file(path)


def test_a_directory_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        read_key_file(tmp_path)
    with pytest.raises(SettingError, match="cannot be written"):
        make_key_file(tmp_path / "none" / "secret-key")
