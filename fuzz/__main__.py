# SPDX-License-Identifier: Apache-2.0
"""Feed mutated input to everything in scrfd_ros that reads files or messages of others.

A target has to read its input or refuse it with an error, within the time and memory that
targets.py allows, and without affecting the next input. If the Python package atheris is installed
(Linux on x86_64), mutations that reach more of the code are kept and mutated further; without it,
only the seeds and earlier findings are mutated.

Input that fails is written to fuzz/corpus/TARGET-failure-..., and its path is printed. To repeat
it: --input PATH. Input that crashes the process is in fuzz/corpus/TARGET.last, after its length in
eight bytes. Every run begins with the inputs that once failed, from test/fuzz_findings/TARGET/.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import logging
import mmap
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from tqdm import tqdm

try:
    import atheris
except ImportError:
    atheris = None

# atheris instruments the modules imported here.
with atheris.instrument_imports(include=["scrfd_ros"]) if atheris else contextlib.nullcontext():
    from mutations import LONGEST
    from targets import TARGETS, Target

    from scrfd_ros.errors import ScrfdError

HERE = Path(__file__).resolve().parent
FINDINGS = HERE.parent / "test" / "fuzz_findings"
_SECONDS = 20  # maximum time for one input
_MEMORY = 8 << 30  # bytes of address space, to protect the machine; limits of targets are lower
_OWN_SHARE = 0.5  # share of our mutations, beside libFuzzer's


class Run:
    """Executions of one target, counted and limited."""

    def __init__(self, target: Target, scratch: Path, corpus: Path) -> None:
        self._target = target
        self._once = target.make(scratch)
        self._status = os.open("/proc/self/status", os.O_RDONLY)
        self._corpus = corpus
        with corpus.with_name(f"{corpus.name}.last").open("w+b") as last:
            last.truncate(8 + LONGEST)
            self._last = mmap.mmap(last.fileno(), 0)
        self.begin = time.monotonic()
        self.executions = self.refused = 0

    def __call__(self, data: bytes) -> None:
        """Execute the target once.

        Raises:
            Exception: any that the target must not raise.
        """
        # If this crashes the process, the input remains: its length and its bytes.
        self._last[: 8 + len(data)] = len(data).to_bytes(8, "little") + data
        self.executions += 1
        size_before, peak_before = self._address_space()
        signal.setitimer(signal.ITIMER_REAL, _SECONDS)
        try:
            self._once(data)
        except ScrfdError:
            self.refused += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        size, peak = self._address_space()
        # An earlier, higher peak hides this one, but was reported itself.
        taken = (peak - max(size_before, size)) >> 10 if peak > peak_before else 0
        if taken > self._target.memory_mib:
            raise MemoryError(f"took {taken} MiB for a moment, expected {self._target.memory_mib}")

    def _address_space(self) -> tuple[int, int]:
        """Current and peak memory of the process, KiB."""
        fields = os.pread(self._status, 4096, 0).split(b"Vm", 3)
        return int(fields[2].split()[1]), int(fields[1].split()[1])

    def keep_failure(self, data: bytes) -> Path:
        path = _failure(self._corpus, hashlib.sha256(data).hexdigest()[:12])
        path.write_bytes(data)
        return path

    def summary(self) -> str:
        seconds = time.monotonic() - self.begin
        return (
            f"{self.executions:,} executions in {seconds:.1f} s "
            f"({self.executions / max(seconds, 1e-3):,.0f} a second), "
            f"{self.executions - self.refused:,} read, {self.refused:,} refused, no failure"
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    targets = "\n".join(f"  {name:14} {target.what}" for name, target in TARGETS.items())
    parser.epilog = f"targets:\n{targets}"
    parser.add_argument("target", choices=TARGETS, metavar="TARGET")
    parser.add_argument("--runs", type=int, help="maximum number of executions")
    parser.add_argument("--seconds", type=float, default=60, help="end after this time; default 60")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; default 0")
    parser.add_argument("--input", type=Path, nargs="+", help="only try these files, unchanged")
    parser.add_argument("--corpus", type=Path, default=HERE / "corpus", help="folder for results")
    parser.add_argument(
        "--unguided", action="store_true", help="do without atheris: the same seed, the same input"
    )
    args = parser.parse_args(argv)
    if args.runs is not None and "--seconds" not in (argv or sys.argv):
        args.seconds = float("inf")
    faulthandler.enable()
    logging.disable()  # there would be thousands for bad input
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    corpus: Path = args.corpus / args.target
    corpus.mkdir(parents=True, exist_ok=True)
    # In memory if possible, as each execution writes a file.
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="fuzz_", dir=memory) as scratch:
        if atheris is not None and not args.unguided and not args.input:
            return _guided(args, Path(scratch), corpus)
        return _unguided(args, Path(scratch), corpus)


def _failure(corpus: Path, name: str) -> Path:
    """Path for failing input: not in the corpus, of which every run executes all."""
    return corpus.with_name(f"{corpus.name}-failure-{name}")


def _seeds(name: str) -> list[bytes]:
    findings = sorted(path for path in (FINDINGS / name).glob("*") if path.is_file())
    return [*TARGETS[name].seeds(), *(path.read_bytes() for path in findings)]


def _unguided(args: argparse.Namespace, scratch: Path, corpus: Path) -> int:
    target = TARGETS[args.target]
    if args.input:
        inputs: Iterator[bytes] = (path.read_bytes() for path in args.input)
    else:
        inputs = _mutated(target, _seeds(args.target), Random(args.seed))
    run = Run(target, scratch, corpus)
    for data in tqdm(inputs, args.target, args.runs, unit="input", disable=None, leave=False):
        if run.executions == args.runs or time.monotonic() > run.begin + args.seconds:
            break
        try:
            run(data)
        except BaseException:
            print(f"{args.target}: FAILED, with the input {run.keep_failure(data)}", flush=True)
            raise
    print(f"{args.target}: {run.summary()}")
    return 0


def _mutated(target: Target, seeds: Sequence[bytes], random: Random) -> Iterator[bytes]:
    yield from seeds
    mutate = target.mutations(seeds)
    for _ in count():
        yield mutate(random.choice(seeds), random)


def _guided(args: argparse.Namespace, scratch: Path, corpus: Path) -> int:
    target = TARGETS[args.target]
    seeds = _seeds(args.target)
    for data in seeds:
        Path(corpus, hashlib.sha1(data).hexdigest()).write_bytes(data)
    mutate = target.mutations(seeds)
    with atheris.instrument_imports(include=["scrfd_ros"]):
        run = Run(target, scratch, corpus)

    def once(data: bytes) -> None:
        run(data)
        if run.executions == args.runs or time.monotonic() > run.begin + args.seconds:
            print(f"{args.target}: {run.summary()}", flush=True)
            os._exit(0)  # libFuzzer has no other way to end early

    def changed(data: bytes, longest: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < _OWN_SHARE:
            return mutate(data, random)[:longest]
        mutated: bytes = atheris.Mutate(data, longest)
        return mutated

    options: dict[str, Any] = {
        "max_len": LONGEST,
        "timeout": _SECONDS - 1,  # both use one alarm clock
        "rss_limit_mb": 0,
        "artifact_prefix": str(_failure(corpus, "")),
        "seed": args.seed + 1,
        "print_final_stats": 1,
    }
    words = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *words, str(corpus)], once, custom_mutator=changed)
    atheris.Fuzz()
    return 1  # Fuzz() ends the process


if __name__ == "__main__":
    sys.exit(main())
