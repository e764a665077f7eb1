"""The stock image: this host's own programs, and a small /etc made for it.

The host's directories of programs are presented as they are (:mod:`outgate.runtime.rootfs` puts an overlay
on each); nothing of them is copied. Everything else is made here, from an allow list, and of /etc only files
that every user of the host may read anyway. So no account, key or home of the host is in the image.
"""

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from outgate.runtime.base import SandboxError

_PROGRAM_DIRECTORIES: Final = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Where programs live (FHS 3.0). On a merged-/usr system all but the first are links into it."""

_LOCAL: Final = "usr/local"
"""Where a host's administrators put their own programs (FHS 3.0), and now and then a key beside one. What packages put
into the rest of /usr anybody can get."""
_WHITEOUT_DEVICE: Final = os.makedev(0, 0)

_ETC_ALLOWED: Final = (
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "os-release",
    "perl",
    "pki/tls",
    "protocols",
    "python3",
    "python3.11",
    "python3.12",
    "python3.13",
    "rpc",
    "services",
    "skel",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
_ETC_BYTES_MAX: Final = 32 << 20
"""The allowed part of /etc is some 1 MiB; more means that something else lies there."""

_DIRECTORIES: Final = {
    "dev": 0o755,
    "etc": 0o755,
    "etc/profile.d": 0o755,
    "home": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "run": 0o755,
    "run/lock": 0o1777,
    "srv": 0o755,
    "sys": 0o755,
    "tmp": 0o1777,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/log": 0o755,
    "var/tmp": 0o1777,
}
_CERTIFICATES: Final = "etc/ssl/certs"
_USER_ID: Final = 1000
_USER_HOME: Final = "home/user"

_FILES: Final = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/bash\n"
        "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
        "_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        "user:x:1000:1000::/home/user:/bin/bash\n"
    ),
    "etc/group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nstaff:x:50:\nuser:x:1000:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "etc/profile": (
        "# Login shells keep the PATH they were started with.\n"
        'for script in /etc/profile.d/*.sh; do [ -r "$script" ] && . "$script"; done\n'
        "unset script\n"
    ),
    "etc/shells": "/bin/sh\n/bin/bash\n",
    # Mount points of the sandbox's own files.
    "etc/hostname": "",
    "etc/hosts": "",
    "etc/resolv.conf": "",
}


def find_host_directories(root: Path = Path("/")) -> tuple[PurePosixPath, ...]:
    """The directories of ``root`` that the image presents as they are (those that are links are copied as links)."""
    return tuple(
        PurePosixPath("/") / name
        for name in _PROGRAM_DIRECTORIES
        if (root / name).is_dir() and not (root / name).is_symlink()
    )


@dataclass(frozen=True, slots=True)
class TrustedAuthority:
    """A certificate authority that the image's programs trust besides the host's.

    ``certificate`` is PEM; ``hash_name`` is what OpenSSL looks it up by in a directory (openssl-rehash(1)).
    """

    certificate: bytes
    hash_name: str


def build_stock_layer(layer: Path, root: Path = Path("/"), authority: TrustedAuthority | None = None) -> None:
    """Fill the empty directory ``layer`` with everything of the image but the host's directories."""
    layer.chmod(0o755)
    for name, mode in _DIRECTORIES.items():
        _make_directory(layer / name, mode)
    for name in _PROGRAM_DIRECTORIES:
        _present_program_directory(root / name, layer / name)
    _hide_private(root, layer)
    _Copier(root / "etc", layer / "etc").copy_allowed()
    for name, text in _FILES.items():
        (layer / name).unlink(missing_ok=True)
        (layer / name).write_text(text)
        (layer / name).chmod(0o644)
    if authority is not None:
        _trust(layer, authority)
    _make_home(layer)


def _trust(layer: Path, authority: TrustedAuthority) -> None:
    """Both ways in which programs look for authorities: the bundle, and the directory of hashed names."""
    directory = layer
    for part in _CERTIFICATES.split("/"):
        directory /= part
        _make_directory(directory)
    file, bundle = directory / "outgate.pem", directory / "ca-certificates.crt"
    file.write_bytes(authority.certificate)
    known = bundle.read_bytes() if bundle.exists() else b""
    bundle.unlink(missing_ok=True)
    bundle.write_bytes(known + authority.certificate)
    for path in (file, bundle):
        path.chmod(0o644)
    link = directory / authority.hash_name
    link.unlink(missing_ok=True)
    link.symlink_to(file.name)


def _make_home(layer: Path) -> None:
    home = layer / _USER_HOME
    shutil.copytree(layer / "etc/skel", home, symlinks=True) if (layer / "etc/skel").is_dir() else home.mkdir()
    home.chmod(0o755)
    for path in (home, *home.rglob("*")):
        os.chown(path, _USER_ID, _USER_ID, follow_symlinks=False)


def _present_program_directory(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_dir():
        _make_directory(target)


def _hide_private(root: Path, layer: Path) -> None:
    """White out what is below /usr/local and not for everybody: with mapped ids a sandbox's root would own it."""
    for directory, below, files in os.walk(root / _LOCAL):
        place = Path(directory)
        private = {name for name in (*below, *files) if not _is_for_everybody((place / name).lstat().st_mode)}
        below[:] = [name for name in below if name not in private]
        for name in private:
            hidden = (place / name).relative_to(root)
            for above in reversed(hidden.parents[:-2]):  # not the root, and not /usr, which is there
                _copy_directory(root / above, layer / above)
            os.mknod(layer / hidden, stat.S_IFCHR | 0o600, _WHITEOUT_DEVICE)


def _is_for_everybody(mode: int) -> bool:
    wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
    return mode & wanted == wanted


def _copy_directory(source: Path, target: Path) -> None:
    """The topmost of merged directories decides how it looks."""
    status = source.stat()
    _make_directory(target, stat.S_IMODE(status.st_mode))
    os.chown(target, status.st_uid, status.st_gid)


def _make_directory(path: Path, mode: int = 0o755) -> None:
    # mkdir's own mode is subject to the daemon's mask, under which a sandbox's users would be locked out.
    path.mkdir(exist_ok=True)
    path.chmod(mode)


class _Copier:
    """Copies the allowed part of /etc: directories, links, and regular files that everybody may read."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source = source
        self._target = target
        self._bytes_left = _ETC_BYTES_MAX

    def copy_allowed(self) -> None:
        for name in _ETC_ALLOWED:
            if os.path.lexists(self._source / name):
                for parent in reversed((self._target / name).relative_to(self._target).parents[:-1]):
                    _make_directory(self._target / parent)
                self._copy(self._source / name, self._target / name)

    def _copy(self, source: Path, target: Path) -> None:
        status = source.lstat()
        if stat.S_ISLNK(status.st_mode):
            target.symlink_to(source.readlink())
        elif stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IXOTH:
            _make_directory(target)
            for entry in sorted(source.iterdir()):
                self._copy(entry, target / entry.name)
        elif stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH:
            self._bytes_left -= status.st_size
            if self._bytes_left < 0:
                raise SandboxError(f"{self._source} holds more than {_ETC_BYTES_MAX >> 20} MiB for the stock image.")
            target.write_bytes(source.read_bytes())
            target.chmod(0o755 if status.st_mode & stat.S_IXOTH else 0o644)
