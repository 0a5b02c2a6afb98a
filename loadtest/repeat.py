#!/usr/bin/env python3
"""Repeats the runs behind the targets that have no peer to compare with, and tells the spread of what they found.

Each run has its own processes and folder, and each round its own seed. Ends with 1 when a run broke a promise, and with 2
when one could not be run; a missed target is told, not hidden.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

# What is repeated: the program and its arguments, with the round's number for {seed}.
RUNS = {
    "chaos": ["roomcast-chaos", "--minutes", "2", "--seed", "{seed}"],
    "questions": ["roomcast-questions", "--questions", "2000", "--fault-every", "0", "--seed", "{seed}"],
    # Long enough for leases of 30 s to end.
    "crashes": ["roomcast-questions", "--questions", "8000", "--fault-every", "3000", "--seed", "{seed}"],
    "rollout": ["roomcast-rollout", "--how", "drain", "--spread", "30"],
}

# The figures: run, what it is, unit, target in words, the figure of one result, whether a value meets the target.
FIGURES = [
    ("chaos", "delivered of owed, while nodes and Redis are killed", "", "1.0000",
     lambda found: found["delivered"] / found["expected"], lambda value: value == 1),
    ("chaos", "acked messages lost; anything lost, doubled or reordered", "", "0",
     lambda found: found["lostAcked"] + found["totalViolations"], lambda value: value == 0),
    ("chaos", "slowest return to normal after a fault", "s", "10",
     lambda found: max(fault["convergedMs"] for fault in found["faults"]) / 1000, lambda value: value <= 10),
    ("questions", "first piece in the room after the model's first word, p95", "ms", "50",
     lambda found: found["firstPiece"]["p95Ms"], lambda value: value <= 50),
    ("crashes", "take-over of a crashed worker's reply, p99", "s", "40",
     lambda found: found["takenOver"]["p99Ms"] / 1000, lambda value: value <= 40),
    ("crashes", "questions without one end", "", "0",
     lambda found: len(found["violations"]), lambda value: value == 0),
    ("rollout", "acked messages lost; anything lost, doubled or reordered", "", "0",
     lambda found: found["totalViolations"], lambda value: value == 0),
    ("rollout", "fullest fifteenth of a drain, as a multiple of an even spread", "", "2",
     lambda found: max(part["crowding"] for part in found["rounds"]), lambda value: value <= 2),
    ("rollout", "longest absence of a client", "s", "8",
     lambda found: max(part["longestAbsenceMs"] for part in found["rounds"]) / 1000, lambda value: value <= 8),
]


def run(name: str, folder: Path, binary: Path, number: int) -> dict:
    program, *rest = RUNS[name]
    command = [folder / program, *(word.format(seed=number) for word in rest), "--binary", binary, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{name} {number} could not run:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def table(found: dict[str, list[dict]]) -> list[str]:
    lines = [
        "| run | figure | target | median | least to most | runs | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, what, unit, target, figure, met in FIGURES:
        if not found.get(name):
            continue
        values = [figure(one) for one in found[name]]
        middle = statistics.median(values)
        shown = [f"{value:.4g}" for value in (middle, min(values), max(values))]
        verdict = "met" if all(map(met, values)) else "met in the median" if met(middle) else "**missed**"
        lines.append(
            f"| {name} | {what}{f', {unit}' if unit else ''} | {target} | {shown[0]} | {shown[1]} to {shown[2]} "
            f"| {len(values)} | {verdict} |"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, default=Path("target/release"), help="folder of the harnesses [%(default)s]")
    parser.add_argument("--binary", type=Path, help="the program under test [roomcast among the programs]")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run [%(default)s]")
    parser.add_argument("--first", type=int, default=1, help="number of the first round, its seed [%(default)s]")
    parser.add_argument("--only", default=",".join(RUNS), help="which runs [%(default)s]")
    parser.add_argument("--json", type=Path, help="where every result goes; those that are there already stay in the table")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of --json")
    options = parser.parse_args()
    found: dict[str, list[dict]] = {}
    if options.json and options.json.exists():
        found = json.loads(options.json.read_text())
    binary = options.binary or options.programs / "roomcast"
    names = [] if options.table else options.only.split(",")
    if unknown := set(names) - set(RUNS):
        parser.error(f"no such run: {', '.join(sorted(unknown))}; there are {', '.join(RUNS)}")
    clean = True
    for number in range(options.first, options.rounds + 1):
        for name in names:
            began = time.monotonic()
            result = run(name, options.programs, binary, number)
            found.setdefault(name, []).append(result)
            clean &= result["clean"]
            word = "clean" if result["clean"] else "NOT CLEAN"
            print(f"{name} {number} of {options.rounds}: {word} ({time.monotonic() - began:.0f} s)", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(table(found)))
    return 0 if clean else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            sys.exit(2)
        raise
