"""A filter of system calls that nothing in a sandbox needs and through which kernels have been broken.

Kept short on purpose: namespaces and users do the work, this makes the kernel's surface smaller. In a pod the runtime's
default filter does the same.
"""

from __future__ import annotations

import errno
import os
import platform
import struct

LOAD_WORD = 0x20
JUMP_IF_EQUAL = 0x15
JUMP_IF_GREATER_OR_EQUAL = 0x35
RETURN = 0x06
"""linux/bpf_common.h: class, size and mode in one."""

NUMBER_OFFSET = 0
ARCHITECTURE_OFFSET = 4
"""struct seccomp_data in linux/seccomp.h."""

ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.ENOSYS
"""As if the kernel did not have it: programs then do without."""

X32_FIRST_NUMBER = 0x40000000
"""The second set of numbers for the same calls on x86-64."""

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

REFUSED = {
    # name: (x86-64, arm64)
    "syslog": (103, 116),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}


def program(machine: str) -> bytes | None:
    """The filter as an array of `struct sock_filter`, or None for a machine whose numbers we do not know."""
    if machine not in ARCHITECTURES:
        return None
    numbers = [pair[list(ARCHITECTURES).index(machine)] for pair in REFUSED.values()]
    tests = [(JUMP_IF_EQUAL, number) for number in numbers]
    if machine == "x86_64":
        tests.append((JUMP_IF_GREATER_OR_EQUAL, X32_FIRST_NUMBER))
    instructions = [
        (LOAD_WORD, 0, 0, ARCHITECTURE_OFFSET),
        (JUMP_IF_EQUAL, 0, len(tests) + 2, ARCHITECTURES[machine]),  # another one: refused
        (LOAD_WORD, 0, 0, NUMBER_OFFSET),
        *((code, len(tests) - index, 0, value) for index, (code, value) in enumerate(tests)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def filter_file() -> int | None:
    """A descriptor to read the filter from, for bubblewrap. The caller closes it."""
    instructions = program(platform.machine())
    if instructions is None:
        return None
    file = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    os.write(file, instructions)
    os.lseek(file, 0, os.SEEK_SET)
    return file
