"""The system calls that a sandbox may make: an allow list, in the form of the OCI runtime specification.

It grants what ordinary programs, compilers, package managers and debuggers use. Left out, so refused
with EPERM: everything that makes or enters namespaces, mounts, loads code into the kernel (modules,
kexec, BPF), opens large kernel surfaces to unprivileged callers (io_uring, userfaultfd,
perf_event_open, keyrings), or concerns the machine rather than the program (clocks, swap, reboot).
Unknown and future calls are refused too. Only the machine's own calling convention is listed: 32-bit
programs are not run, because their ``socketcall`` hides the arguments that the rules below look at.
"""

import errno
from typing import Final

Rule = dict[str, object]

_ARCHITECTURES: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}

_NAMESPACE_FLAGS: Final = 0x7E02_0000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. (clone(2) cannot make time namespaces.)"""

_TIME_NAMESPACE: Final = 0x80
"""CLONE_NEWTIME, which unshare(2) takes; for clone(2) the bit belongs to the exit signal."""
_BUILDER_FLAGS: Final = 0x0402_0000
"""CLONE_NEWNS and CLONE_NEWUTS."""

_SOCKET_TYPE_MASK: Final = 0xF
"""What is left of socket(2)'s type without SOCK_NONBLOCK and SOCK_CLOEXEC (include/linux/net.h)."""

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_DGRAM = 1, 2

_FILES: Final = """
    access chdir chmod chown chroot close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr
    flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64
    getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lgetxattr link linkat
    listxattr llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat newfstatat open openat
    openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
    removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat statfs statx symlink symlinkat sync
    sync_file_range syncfs tee truncate umask unlink unlinkat utime utimensat utimes vmsplice write writev
"""
_WAITING: Final = """
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 io_cancel io_destroy
    io_getevents io_pgetevents io_setup io_submit poll ppoll pselect6 select signalfd signalfd4 timerfd_create
    timerfd_gettime timerfd_settime
"""
_MEMORY: Final = """
    brk get_mempolicy madvise map_shadow_stack mbind membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall
    mmap mprotect mremap msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise
    process_mrelease remap_file_pages set_mempolicy set_mempolicy_home_node
"""
_PROCESSES: Final = """
    alarm arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_wait futex_waitv
    futex_wake get_robust_list get_thread_area getcpu getegid geteuid getgid getgroups getitimer getpgid getpgrp
    getpid getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid getuid ioprio_get ioprio_set
    kcmp kill landlock_add_rule landlock_create_ruleset landlock_restrict_self modify_ldt pause pidfd_getfd pidfd_open
    pidfd_send_signal prctl prlimit64 process_vm_readv process_vm_writev ptrace restart_syscall rseq
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer
    setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setuid sigaltstack tgkill tkill uname
    vfork wait4 waitid
"""
_NETWORK: Final = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
    sendto setsockopt shutdown
"""
_IPC: Final = """
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget
    semop semtimedop shmat shmctl shmdt shmget
"""
_TIME: Final = """
    clock_getres clock_gettime clock_nanosleep getrandom gettimeofday nanosleep sysinfo time timer_create timer_delete
    timer_getoverrun timer_gettime timer_settime times
"""

_PERSONALITIES: Final = (0x0, 0x0040000, 0xFFFFFFFF)
"""PER_LINUX, the same with ADDR_NO_RANDOMIZE (debuggers), and the query. No foreign execution domains."""


def render_seccomp(machine: str, *, is_builder: bool = False) -> Rule:
    """The ``linux.seccomp`` object for ``machine`` (as uname(2) names it). Raises KeyError for machines not known."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": [_ARCHITECTURES[machine]],
        "syscalls": [
            _allow(*allowed_names()),
            # clone(2) takes its flags in the first argument on both machines.
            _allow("clone", conditions=((0, "SCMP_CMP_MASKED_EQ", _NAMESPACE_FLAGS, 0),)),
            # clone3 passes its flags in memory, where a filter cannot look; "unknown" makes libc use clone.
            _refuse(errno.ENOSYS, "clone3"),
            *(_allow("personality", conditions=((0, "SCMP_CMP_EQ", value, 0),)) for value in _PERSONALITIES),
            *_socket_rules("socket"),
            # A pair of connected sockets exists for AF_UNIX only.
            _allow("socketpair", conditions=((0, "SCMP_CMP_EQ", AF_UNIX, 0),)),
            *(_builder_rules() if is_builder else ()),
        ],
    }


def _builder_rules() -> tuple[Rule, ...]:
    """What buildah needs besides: mounts, in mount and host name namespaces of its own. No other namespace."""
    forbidden = (_NAMESPACE_FLAGS | _TIME_NAMESPACE) & ~_BUILDER_FLAGS
    return (
        _allow("mount", "umount2"),
        _allow("unshare", conditions=((0, "SCMP_CMP_MASKED_EQ", forbidden, 0),)),
    )


def allowed_names() -> tuple[str, ...]:
    """The calls that are allowed whatever their arguments, sorted."""
    groups = (_FILES, _WAITING, _MEMORY, _PROCESSES, _NETWORK, _IPC, _TIME)
    return tuple(sorted({name for group in groups for name in group.split()}))


def _socket_rules(name: str) -> tuple[Rule, ...]:
    """Unix sockets, TCP, UDP and ping sockets, and of netlink the routing family, which ``ip addr`` and libc read.

    Not allowed thereby: packet, vsock, raw and SCTP sockets, and families whose mere creation would
    make the kernel load a module.
    """
    ping4, ping6 = 1, 58
    tcp, udp = 6, 17
    kinds = [
        (family, kind, protocol)
        for family, ping in ((AF_INET, ping4), (AF_INET6, ping6))
        for kind, protocol in (
            (SOCK_STREAM, 0),
            (SOCK_STREAM, tcp),
            (SOCK_DGRAM, 0),
            (SOCK_DGRAM, udp),
            (SOCK_DGRAM, ping),
        )
    ]
    return (
        _allow(name, conditions=((0, "SCMP_CMP_EQ", AF_UNIX, 0),)),
        _allow(name, conditions=((0, "SCMP_CMP_EQ", AF_NETLINK, 0), (2, "SCMP_CMP_EQ", 0, 0))),
        *(
            _allow(
                name,
                conditions=(
                    (0, "SCMP_CMP_EQ", family, 0),
                    (1, "SCMP_CMP_MASKED_EQ", _SOCKET_TYPE_MASK, kind),
                    (2, "SCMP_CMP_EQ", protocol, 0),
                ),
            )
            for family, kind, protocol in kinds
        ),
        # Programs that probe for other families expect this answer and go on without.
        *(
            _refuse(errno.EAFNOSUPPORT, name, conditions=((0, operator, family, 0),))
            for operator, family in (("SCMP_CMP_GT", AF_NETLINK), *(("SCMP_CMP_EQ", f) for f in (0, 3, 4, 5, 9)))
        ),
    )


def _allow(*names: str, conditions: tuple[tuple[int, str, int, int], ...] = ()) -> Rule:
    return _rule("SCMP_ACT_ALLOW", names, conditions)


def _refuse(error: int, *names: str, conditions: tuple[tuple[int, str, int, int], ...] = ()) -> Rule:
    return {**_rule("SCMP_ACT_ERRNO", names, conditions), "errnoRet": error}


def _rule(action: str, names: tuple[str, ...], conditions: tuple[tuple[int, str, int, int], ...]) -> Rule:
    rule: Rule = {"names": list(names), "action": action}
    if conditions:
        # valueTwo is the value that MASKED_EQ compares with; the other operators ignore it.
        rule["args"] = [
            {"index": index, "op": operator, "value": value, "valueTwo": second}
            for index, operator, value, second in conditions
        ]
    return rule
