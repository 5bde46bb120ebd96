#!/usr/bin/env python3
"""pack.py IMG OUT.bin: the metadata of an md member without its zeroes.

OUT is the device's size in sectors (u64, little-endian), then for each non-zero sector among the
first 1 MiB and the last 128 KiB its address (u64) and its 512 bytes.
"""
import os
import struct
import sys

image, out = sys.argv[1:]
device = os.path.getsize(image) // 512
near = set(range(min(2048, device))) | set(range(max(0, device - 256), device))
with open(image, "rb") as source, open(out, "wb") as packed:
    packed.write(struct.pack("<Q", device))
    for lba in sorted(near):
        source.seek(lba * 512)
        sector = source.read(512)
        if any(sector):
            packed.write(struct.pack("<Q", lba) + sector)
