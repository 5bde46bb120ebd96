"""What tools/compare-* share: fio's cells, rounds in which all take turns, and the table of medians."""

import json
import os
import statistics
import subprocess
import sys

GIB = 1 << 30
RAIDLAB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../target/release/raidlab")
CELLS = [
    ("4k read qd1", ["--rw=randread", "--bs=4k", "--iodepth=1"]),
    ("4k read qd32", ["--rw=randread", "--bs=4k", "--iodepth=32"]),
    ("4k write qd1", ["--rw=randwrite", "--bs=4k", "--iodepth=1"]),
    ("4k write qd32", ["--rw=randwrite", "--bs=4k", "--iodepth=32"]),
    ("1M read qd8", ["--rw=read", "--bs=1M", "--iodepth=8"]),
    ("1M write qd8", ["--rw=write", "--bs=1M", "--iodepth=8"]),
]


def option(name, default):
    """The value of an option of this program."""
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def make_lab(at, name):
    """A lab of a GiB in memory: `raid0` or `raid5`."""
    words = {"raid0": "--level 0 --disks 4 --size 260M", "raid5": "--level 5 --disks 4 --size 346M"}[name]
    create = [RAIDLAB, "-q", "create", at / name, *words.split(), "--chunk", "64K"]
    subprocess.run(create, check=True, stdout=subprocess.DEVNULL)
    return at / name


def measure(target, job, seconds):
    """IO/s of a job on what fio's words `target` say, over `seconds`, or once over all of it."""
    fio = ["fio", "--name=t", *target, f"--size={GIB}", "--randrepeat=0", "--norandommap", "--output-format=json", *job]
    limit = [f"--runtime={seconds}", "--time_based"] if seconds else []
    ran = subprocess.run(fio + limit, check=True, capture_output=True, text=True)
    result = json.loads(ran.stdout[ran.stdout.index("{"):])["jobs"][0]
    return result["read"]["iops"] + result["write"]["iops"]


def compare(targets):
    """Measures all targets, by name, and prints medians, spreads, and ratios to the best that is not raidlab."""
    rounds, seconds = int(option("--rounds", "5")), option("--seconds", "2")
    # Memory that was never written costs a page fault, or is zero without being read.
    for target in targets.values():
        measure(target, ["--rw=write", "--bs=1M", "--iodepth=8"], None)
    seen = {(name, cell): [] for name in targets for cell, _ in CELLS}
    for number in range(rounds):
        for cell, job in CELLS:
            for name, target in targets.items():
                seen[name, cell].append(measure(target, job, seconds))
        print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)

    print(f"{'IO/s, median (spread)':28}" + "".join(f"{cell:>22}" for cell, _ in CELLS))
    for name in targets:
        line = f"{name:28}"
        for cell, _ in CELLS:
            values = seen[name, cell]
            spread = (max(values) - min(values)) / statistics.median(values) * 100
            line += f"{statistics.median(values):>14.0f} ({spread:3.0f}%)"
        print(line)
    others = [name for name in targets if not name.startswith("raidlab")]
    for name in targets:
        if others and name not in others:
            best = lambda cell: max(statistics.median(seen[other, cell]) for other in others)
            ratios = "".join(f"{statistics.median(seen[name, cell]) / best(cell):>22.2f}" for cell, _ in CELLS)
            print(f"{name + ' / best other':28}{ratios}")
