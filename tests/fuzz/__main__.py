"""Fuzzers of what reads other people's bytes: python tests/fuzz [--seconds N] [--seed N] [--save] [target]...

Each target (targets.py) first gets its saved corpus, then mutations of that. In a build of tests/sanitize, inputs that
reach code that none before did are mutated further, and --save adds them to the corpus. An input that fails is left in
build/fuzz, `python tests/fuzz FILE` tries it again.
"""

import argparse
import ctypes
import hashlib
import mmap
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from mutate import mutate
from targets import TARGETS

import nfct_fast

HERE = Path(__file__).resolve().parent
FOUND = HERE.parent.parent / "build" / "fuzz"
MOST = 1 << 16


def corpus(name):
    """The saved inputs: a line of hexadecimal digits each."""
    return [bytes.fromhex(line) for line in (HERE / "corpus" / f"{name}.txt").read_text().split()]


def coverage():
    """(begin, new) of coverage.c, with nothing known; two functions that find nothing new where the package was built
    without it."""
    (shared,) = Path(nfct_fast.__file__).parent.glob("_modules.*.so")
    library = ctypes.CDLL(str(shared))
    if hasattr(library, "nfct_fuzz_new"):
        library.nfct_fuzz_forget()
        return library.nfct_fuzz_begin, library.nfct_fuzz_new
    return (lambda: None), (lambda: None)


def work(name, seconds, seed, keep):
    """Run one target. `keep` has the present input, in case this process dies."""
    target, inputs = TARGETS[name](), corpus(name)
    begin, new = coverage()
    chance = random.Random(seed)
    tried, fresh, waiting = 0, [], list(inputs)
    deadline = time.monotonic() + seconds
    while waiting or time.monotonic() < deadline:
        saved = bool(waiting)
        data = waiting.pop(0) if waiting else mutate(chance, inputs)
        keep.seek(0)
        keep.write(len(data).to_bytes(4, "little") + data)
        begin()
        target(data)
        tried += 1
        if new() and not saved:
            inputs.append(data)
            fresh.append(data)
    return tried, fresh


def fuzz(name, seconds, seed):
    """(line to print, inputs that reached something new), or SystemExit with what failed."""
    FOUND.mkdir(parents=True, exist_ok=True)
    at_hand = FOUND / f"{name}.now"
    at_hand.write_bytes(bytes(MOST))
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        __file__,
        "--at-hand",
        at_hand,
        "--seconds",
        str(seconds),
        "--seed",
        str(seed),
        name,
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds + 300)
    raw = at_hand.read_bytes()
    at_hand.unlink()
    if done.returncode:
        data = raw[4 : 4 + int.from_bytes(raw[:4], "little")]
        place = FOUND / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
        place.write_bytes(data)
        raise SystemExit(
            f"fuzz: {name}: status {done.returncode} at an input of {len(data)} bytes; "
            f"again: python tests/fuzz {place}\n"
            f"{done.stdout}{done.stderr}"
        )
    line, *fresh = done.stdout.splitlines()
    return f"{name}: {line}", [bytes.fromhex(one) for one in fresh]


def save(name, fresh):
    """Add the inputs found, each shortened as far as it still reaches something that the others do not."""
    begin, new = coverage()
    if new() is None:
        raise SystemExit("fuzz: --save needs a build of tests/sanitize address")
    target, kept = TARGETS[name](), []
    for data in sorted([*corpus(name), *fresh], key=len):
        begin()
        target(data)
        if new():
            kept.append(data)
    (HERE / "corpus" / f"{name}.txt").write_text("".join(f"{data.hex()}\n" for data in kept))
    return len(kept)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--at-hand", help=argparse.SUPPRESS)
    parser.add_argument("what", nargs="*")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    if options.at_hand:
        with open(options.at_hand, "r+b") as file, mmap.mmap(file.fileno(), 0) as keep:
            tried, fresh = work(options.what[0], options.seconds, seed, keep)
        print(f"{tried} inputs, {len(fresh)} of them reached something new", *[one.hex() for one in fresh], sep="\n")
        return
    for name in options.what or TARGETS:
        if os.path.isfile(name):
            TARGETS[Path(name).name.rpartition("-")[0]]()(Path(name).read_bytes())
            continue
        if name not in TARGETS:
            sys.exit(f"fuzz: there are {', '.join(TARGETS)} and files in {FOUND}, and no {name}")
        line, fresh = fuzz(name, options.seconds, seed)
        print(f"{line} (seed {seed})", flush=True)
        if options.save:
            print(f"{name}: {save(name, fresh)} in the corpus")


if __name__ == "__main__":
    main()
