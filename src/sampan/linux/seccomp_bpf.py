"""Classic BPF that decides a system call by its number alone: a search tree over ranges.

libseccomp makes one comparison or more for each call and architecture; in real profiles most calls
stand next to others with the same answer, so that 300 allowed calls are some 30 ranges. What is
short is checked, translated and kept by the kernel faster, at every start of a container.

Source: seccomp(2); the kernel's networking/filter.rst.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# linux/filter.h
LD_W_ABS = 0x20
JMP_JA = 0x05
JMP_JEQ_K = 0x15
JMP_JGE_K = 0x35
RET_K = 0x06
_NR_OFFSET, _ARCH_OFFSET = 0, 4  # struct seccomp_data
_BLOCK = 200  # ranges whose tree is surely within the 255 steps of a conditional jump

Range = tuple[int, int | None]
"""First number, and what is returned from there on; None is left to the program behind."""

Instruction = tuple[int, int, int, int]
"""Code, k, jt, jf of struct sock_filter."""

_ONWARD: Instruction = (JMP_JA, -1, 0, 0)  # a jump to the end, resolved when that is known


def ranges(calls: Mapping[int, int], beyond: tuple[int, int] | None, first: int = 0) -> list[Range]:
    """The ranges of `calls`, number → action, from `first` on.

    `beyond` is a number and the action for all above it.
    """
    points: dict[int, int | None] = {first: None}
    for number in sorted(calls):
        points[number] = calls[number]
        points[number + 1] = None
    out: list[Range] = []
    for number in sorted(points):
        if beyond is not None and number > beyond[0]:
            break
        if not out or out[-1][1] != points[number]:
            out.append((number, points[number]))
    if beyond is not None:
        out.append((beyond[0] + 1, beyond[1]))
    return out


def program(tables: Sequence[tuple[int, list[Range]]]) -> bytes:
    """Instructions for each architecture's (AUDIT_ARCH_* token, ranges), to stand before others.

    What no table decides, and other architectures, go on to the instruction behind the last.
    """
    blocks = [(token, [(LD_W_ABS, _NR_OFFSET, 0, 0), *_tree(table)]) for token, table in tables]
    length = 1 + sum(2 + len(block) for _, block in blocks)
    out: list[Instruction] = [(LD_W_ABS, _ARCH_OFFSET, 0, 0)]
    for token, block in blocks:
        out.append((JMP_JEQ_K, token, 1, 0))
        out.append((JMP_JA, len(block), 0, 0))
        for instruction in block:
            if instruction is _ONWARD:
                instruction = (JMP_JA, length - len(out) - 1, 0, 0)
            out.append(instruction)
    return b"".join(
        struct.pack("<HBBI", code, true, false, value) for code, value, true, false in out
    )


def _tree(table: list[Range]) -> list[Instruction]:
    """A search with the number in the accumulator; no path falls through at the end."""
    if len(table) <= _BLOCK:
        return _block(table)
    middle = len(table) // 2
    left, right = _tree(table[:middle]), _tree(table[middle:])
    return [
        (JMP_JGE_K, table[middle][0], 0, 1),
        (JMP_JA, len(left), 0, 0),
        *left,
        *right,
    ]


def _block(table: list[Range]) -> list[Instruction]:
    """Comparisons first, then one leaf for each answer."""
    count = len(table) - 1
    leaves: dict[int | None, int] = {}
    for _, action in table:
        leaves.setdefault(action, count + len(leaves))
    nodes: list[Instruction] = []

    def build(low: int, high: int) -> int:
        """Where the search among table[low:high] begins."""
        if high - low == 1:
            return leaves[table[low][1]]
        here = len(nodes)
        nodes.append(_ONWARD)
        middle = (low + high) // 2
        left, right = build(low, middle), build(middle, high)
        nodes[here] = (JMP_JGE_K, table[middle][0], right - here - 1, left - here - 1)
        return here

    build(0, len(table))
    return nodes + [_ONWARD if action is None else (RET_K, action, 0, 0) for action in leaves]
