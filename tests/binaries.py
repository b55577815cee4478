"""What a shared library is for, and what it exports, read from its headers: ELF, Mach-O and PE, all of 64 bits."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

__all__ = ["exported", "glibc_versions", "machine"]

_MACHINES = {
    ("ELF", 62): "linux x86_64",
    ("ELF", 183): "linux aarch64",
    ("Mach-O", 0x01000007): "darwin x86_64",
    ("Mach-O", 0x0100000C): "darwin arm64",
    ("PE", 0x8664): "win32 AMD64",
}
_DYNAMIC_SYMBOLS, _SYMBOL_TABLE = 11, 2


def _kind(data: bytes) -> str:
    if data[:4] == b"\x7fELF":
        return "ELF"
    return "Mach-O" if data[:4] == b"\xcf\xfa\xed\xfe" else "PE" if data[:2] == b"MZ" else ""


def machine(data: bytes) -> str:
    """The system and the processor that a library is for."""
    at = {"ELF": 0x12, "Mach-O": 4}.get(_kind(data), _u32(data, 0x3C) + 4)
    return _MACHINES[_kind(data), _u32(data, at) if _kind(data) == "Mach-O" else _u16(data, at)]


def exported(data: bytes) -> set[str]:
    """The names that a program which loads the library finds in it."""
    found = {"ELF": _of_elf, "Mach-O": _of_mach, "PE": _of_pe}[_kind(data)]
    return set(found(data))


def glibc_versions(data: bytes) -> list[tuple[int, ...]]:
    """The versions of the C library of GNU that a library names."""
    return sorted({tuple(map(int, one.split(b"."))) for one in re.findall(rb"GLIBC_(\d+(?:\.\d+)+)", data)})


def _of_elf(data: bytes) -> Iterator[str]:
    first, size, count = _u64(data, 0x28), _u16(data, 0x3A), _u16(data, 0x3C)
    sections = [first + size * number for number in range(count)]
    for section in sections:
        if _u32(data, section + 4) != _DYNAMIC_SYMBOLS:
            continue
        names = _u64(data, sections[_u32(data, section + 0x28)] + 0x18)
        start, length = _u64(data, section + 0x18), _u64(data, section + 0x20)
        for symbol in range(start, start + length, 24):
            if data[symbol + 4] >> 4 == 1 and _u16(data, symbol + 6):  # global, and defined here
                yield _text(data, names + _u32(data, symbol))


def _of_mach(data: bytes) -> Iterator[str]:
    command = 32
    for _ in range(_u32(data, 16)):
        if _u32(data, command) == _SYMBOL_TABLE:
            symbols, count, names = (_u32(data, command + offset) for offset in (8, 12, 16))
            for symbol in range(symbols, symbols + 16 * count, 16):
                if data[symbol + 4] & 0x1F == 0x0F:  # external, in a section, not private
                    yield _text(data, names + _u32(data, symbol)).removeprefix("_")
        command += _u32(data, command + 4)


def _of_pe(data: bytes) -> Iterator[str]:
    head = _u32(data, 0x3C)
    options = head + 24
    sections = options + _u16(data, head + 20)
    spans = [(sections + 40 * number) for number in range(_u16(data, head + 6))]

    def place(address: int) -> int:
        """Where in the file an address in memory is."""
        for span in spans:
            size, start, _, offset = struct.unpack_from("<4I", data, span + 8)
            if start <= address < start + size:
                return int(offset) + address - int(start)
        raise ValueError(address)

    table = place(_u32(data, options + 112))
    names = place(_u32(data, table + 32))
    for number in range(_u32(data, table + 24)):
        yield _text(data, place(_u32(data, names + 4 * number)))


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(0, at)].decode()
