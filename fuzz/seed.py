#!/usr/bin/env python3
"""Fills fuzz/corpus with the members of tests/golden and the scenarios of tests/scenarios."""
import pathlib
import struct

here = pathlib.Path(__file__).resolve().parent
corpus = {name: here / "corpus" / name for name in ("superblock", "bitmap", "bad_blocks", "scenario_text")}
for folder in corpus.values():
    folder.mkdir(parents=True, exist_ok=True)
for member in sorted((here.parent / "tests/golden").glob("*.bin")):
    packed = member.read_bytes()
    (device,) = struct.unpack_from("<Q", packed)
    sectors = {struct.unpack_from("<Q", packed, at)[0]: packed[at + 8 : at + 520] for at in range(8, len(packed), 520)}

    def read(lba, length):
        return b"".join(sectors.get(lba + i, bytes(512)) for i in range(length))

    for minor, at in ((0, (device - 16) & ~7), (1, 0), (2, 8)):
        superblock = read(at, 1)
        if struct.unpack_from("<I", superblock) != (0xA92B4EFC,) or struct.unpack_from("<Q", superblock, 144) != (at,):
            continue
        (corpus["superblock"] / member.stem).write_bytes(struct.pack("<BQ", minor, device) + superblock)
        (features,) = struct.unpack_from("<I", superblock, 8)
        bitmap, log = struct.unpack_from("<i", superblock, 96)[0], struct.unpack_from("<i", superblock, 188)[0]
        if features & 1:
            (corpus["bitmap"] / member.stem).write_bytes(read(at + bitmap, 8))
        if features & 8:
            (corpus["bad_blocks"] / member.stem).write_bytes(struct.pack("<BQ", 0, device) + read(at + log, 8))
for scenario in sorted((here.parent / "tests/scenarios").glob("*.toml")):
    (corpus["scenario_text"] / scenario.stem).write_bytes(scenario.read_bytes())
