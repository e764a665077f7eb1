#!/usr/bin/python3 -IS
"""In place of /bin/sh: notes what descriptors its starter left open, then becomes the shell that it replaced."""

import json
import os
import stat
import sys


def main() -> None:
    found = {}
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            status = os.fstat(number)
        except OSError:
            continue
        target = os.readlink(f"/proc/self/fd/{number}")
        # The script itself is open while the interpreter reads it.
        if target != os.path.realpath(__file__):
            found[number] = (stat.S_IFMT(status.st_mode), target)
    note = f"/var/tmp/seen-{os.getpid()}-{os.urandom(4).hex()}"
    with open(note, "w") as file:
        json.dump({"argv": sys.argv[:4], "cwd": os.getcwd(), "open": found}, file)
    os.execv("/usr/bin/real-sh", ["/bin/sh", *sys.argv[1:]])


if __name__ == "__main__":
    main()
