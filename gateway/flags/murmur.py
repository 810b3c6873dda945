"""MurmurHash3, x86, 32 bits, seed 0: what flagd takes percentages of. Pure."""

_ALL = 0xFFFFFFFF


def murmur3(data: bytes) -> int:
    """Hash to 0 … 2³² - 1. Not for secrets: anyone can find two texts with one hash."""
    hashed = 0
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        hashed ^= _mixed(int.from_bytes(data[at : at + 4], "little"))
        hashed = (_rotated(hashed, 13) * 5 + 0xE6546B64) & _ALL
    if whole < len(data):
        hashed ^= _mixed(int.from_bytes(data[whole:], "little"))
    hashed ^= len(data)
    hashed = ((hashed ^ (hashed >> 16)) * 0x85EBCA6B) & _ALL
    hashed = ((hashed ^ (hashed >> 13)) * 0xC2B2AE35) & _ALL
    return hashed ^ (hashed >> 16)


def _mixed(block: int) -> int:
    return (_rotated((block * 0xCC9E2D51) & _ALL, 15) * 0x1B873593) & _ALL


def _rotated(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _ALL
