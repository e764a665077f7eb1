"""Prints the devices that are there, and where a node of each other one could be made."""

import json
import os
import stat
import sys


def main() -> None:
    wanted = json.loads(sys.argv[1])
    print(
        json.dumps({"there": find_devices(), "made": [name for name, *node in wanted if make(*node)], "fifo": fifo()})
    )


def find_devices() -> list[str]:
    found = []
    for directory, below, files in os.walk("/"):
        if directory == "/":
            below[:] = [name for name in below if name not in {"proc", "sys", "usr"}]  # large, and mounted nodev
        for name in files:
            path = os.path.join(directory, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISBLK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev != os.makedev(1, 3)):
                found.append(path)
    return sorted(found)


def make(kind: str, major: int, minor: int) -> bool:
    """Whether it could be made anywhere; one that could is opened as well."""
    mode = stat.S_IFBLK if kind == "b" else stat.S_IFCHR
    made = False
    for directory in ("/tmp", "/dev", "/dev/shm", "/sys/fs/cgroup", "/etc"):
        try:
            os.mknod(f"{directory}/probe", mode | 0o666, os.makedev(major, minor))
        except OSError:
            continue
        made = True
        os.unlink(f"{directory}/probe")
    return made


def fifo() -> bool:
    os.mkfifo("/tmp/probe-fifo")
    os.unlink("/tmp/probe-fifo")
    return True


if __name__ == "__main__":
    main()
