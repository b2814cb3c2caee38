"""Classic BPF, interpreted: what a seccomp program answers, without loading it."""

from __future__ import annotations

import struct


def interpret(
    program: list[tuple[int, int, int, int]], number: int, arch: int, args: list[int]
) -> int:
    """What a classic BPF program returns for a call."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *args)
    accumulator = index = at = 0
    memory = [0] * 16
    while True:
        code, true, false, value = program[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x60:
                accumulator = memory[value]
            case 0x02:
                memory[value] = accumulator
            case 0x07:
                index = accumulator
            case 0x87:
                accumulator = index
            case 0x54:
                accumulator &= value
            case 0x05:
                at += value
            case 0x15:
                at += true if accumulator == value else false
            case 0x25:
                at += true if accumulator > value else false
            case 0x35:
                at += true if accumulator >= value else false
            case 0x45:
                at += true if accumulator & value else false
            case 0x06:
                return value
            case _:
                raise AssertionError(f"instruction {code:#x}")


def instructions(program: bytes) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("<HBBI", program))
