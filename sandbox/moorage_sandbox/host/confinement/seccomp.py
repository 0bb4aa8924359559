"""A filter that refuses system calls which no program in a sandbox needs, and which had security holes in the past.

The list is short on purpose. Namespaces and users isolate the sandbox; the filter only reduces what can be attacked in
the kernel. In a pod the default filter of the container runtime does the same.
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
"""linux/bpf_common.h: class, size and mode of an instruction in one number."""

NUMBER_OFFSET = 0
ARCHITECTURE_OFFSET = 4
"""struct seccomp_data in linux/seccomp.h."""

ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.ENOSYS
"""The error of a kernel without the system call. Programs have a fallback for it."""

X32_FIRST_NUMBER = 0x40000000
"""The x32 ABI of x86-64 has a second set of numbers for the same calls, which begins here."""

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


def build_program(machine: str) -> bytes | None:
    """Return the filter as an array of `struct sock_filter`, or None for a machine with unknown call numbers."""
    if machine not in ARCHITECTURES:
        return None
    numbers = [pair[list(ARCHITECTURES).index(machine)] for pair in REFUSED.values()]
    tests = [(JUMP_IF_EQUAL, number) for number in numbers]
    if machine == "x86_64":
        tests.append((JUMP_IF_GREATER_OR_EQUAL, X32_FIRST_NUMBER))
    instructions = [
        (LOAD_WORD, 0, 0, ARCHITECTURE_OFFSET),
        (JUMP_IF_EQUAL, 0, len(tests) + 2, ARCHITECTURES[machine]),  # another architecture is refused
        (LOAD_WORD, 0, 0, NUMBER_OFFSET),
        *((code, len(tests) - index, 0, value) for index, (code, value) in enumerate(tests)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def open_filter_file() -> int | None:
    """Return a descriptor from which bubblewrap reads the filter. The caller closes it."""
    instructions = build_program(platform.machine())
    if instructions is None:
        return None
    file = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    os.write(file, instructions)
    os.lseek(file, 0, os.SEEK_SET)
    return file
