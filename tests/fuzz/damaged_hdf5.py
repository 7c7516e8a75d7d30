#!/usr/bin/env python3
"""Damages HDF5 files at random and gives each to a program, which must end by itself with exit code 0 or 4.

    damaged_hdf5.py COUNT FILE... -- PROGRAM [ARGUMENT...]     the damaged file is the last argument

With `hesspect-try-hdf5` as the program a signal is an answer too: that program is there to be ended (--trial).
Damage: some bytes set to others, to 0 or to 0xff; a word set to an extreme; a piece cut out, doubled or moved; the end cut off.
Where a file has bytes that HDF5 trusts (signatures of heaps, trees, headers), half of the damage is near these.
"""

import collections
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SLOWEST_S = 30  # of a loaded machine; the trial ends itself after two seconds of processor time
TRUSTED = re.compile(rb"GCOL|HEAP|TREE|SNOD|OHDR|OCHK|FRHP|FHDB|FHIB|BTHD|BTLF|BTIN|FADB|FAHD|\x89HDF")
EXTREMES = [b"\xff" * 8, b"\0" * 8, b"\xff" * 4, b"\0" * 4, b"\1" + b"\0" * 7, b"\xff" * 7 + b"\x7f", b"\xff\xff", b"\0\0"]


def damaged(good, chance):
    places = [m.start() for m in TRUSTED.finditer(good)]
    content = bytearray(good)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        near = places and chance.random() < 0.5
        at = min(len(content) - 1, chance.choice(places) + chance.randrange(96)) if near else chance.randrange(len(content))
        kind = chance.randrange(8)
        if kind < 3:
            content[at] = chance.choice((0, 0xFF, 0x80, chance.randrange(256)))
        elif kind == 3:
            content[at] ^= 1 << chance.randrange(8)
        elif kind == 4:
            word = chance.choice(EXTREMES)
            content[at : at + len(word)] = word
        elif kind == 5:
            del content[at : at + chance.randrange(1, 64)]
        elif kind == 6:
            start = chance.randrange(len(content))
            content[at:at] = content[start : start + chance.randrange(1, 64)]
        else:
            content = content[: max(at, 16)] if chance.random() < 0.2 else content
    return bytes(content)


def main():
    count, rest = int(sys.argv[1]), sys.argv[2:]
    files, program = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    trial = Path(program[0]).name == "hesspect-try-hdf5"
    chance = random.Random(20261128 if os.environ.get("SEED") is None else int(os.environ["SEED"]))
    good = [Path(name).read_bytes() for name in files]
    codes, faults = collections.Counter(), []
    with tempfile.TemporaryDirectory(prefix="damaged_", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for number in range(count):
            path = Path(folder, "damaged.h5")
            path.write_bytes(damaged(good[number % len(good)], chance))
            try:
                code = subprocess.run([*program, path], capture_output=True, timeout=SLOWEST_S).returncode
            except subprocess.TimeoutExpired:
                code = "endless"
            codes[code] += 1
            if code not in (0, 4) and not (trial and isinstance(code, int) and code < 0):
                kept = Path(tempfile.gettempdir(), f"damaged-{os.getpid()}-{number}.h5")
                kept.write_bytes(path.read_bytes())
                faults.append((number, code, str(kept)))
    print(f"{count} damaged files of {len(files)}: exit codes {dict(codes)}, {len(faults)} faults {faults[:8]}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
