#!/usr/bin/env python3
"""Times a real target behind a pipe, and run by the tap, in turns, with a sandbox for each run.

    benches/targets.py [--records N] [--runs N] [--before COMMAND] [--tap FILE] -- TARGET [ARGUMENT]...

It prints the wall time from the start of the tap to the end of both, how often the target was
started, and the largest resident set of the tap alone. `--before` empties the target's table or
folder before each run. Build first: `cargo build --release --workspace --bins`. Linux only.
"""

import argparse
import pathlib
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

PROGRAMS = pathlib.Path(__file__).resolve().parent.parent / "target/release"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--before", metavar="COMMAND", default="true")
    parser.add_argument("--tap", metavar="FILE", default=PROGRAMS / "tap-streamduo")
    parser.add_argument("target", nargs="+")
    arguments = parser.parse_args()
    tap = shlex.quote(str(arguments.tap))
    target = shlex.join(arguments.target)
    ways = {
        "pipe": f"{tap} -c {{config}} | {target} > target.out",
        "loop": f"{tap} -c {{config}} -- {target}",
    }
    times = {way: [] for way in ways}
    for _ in range(arguments.runs):
        for way, command in ways.items():
            subprocess.run(arguments.before, shell=True, check=True)
            seconds, starts, peak = measure(command, arguments)
            times[way].append(seconds)
            print(f"{way}: {seconds:.2f} s, {starts} starts, {peak:.1f} MB", flush=True)
    pipe, loop = (statistics.median(times[way]) for way in ways)
    print(f"median of {arguments.runs}: pipe {pipe:.2f} s, loop {loop:.2f} s, ratio {loop / pipe:.2f}")


def measure(command, arguments):
    """Runs a command against a sandbox of its own. Returns its wall time, the starts, and the tap's memory in MB."""
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+") as log:
        # The sandbox makes its records before it runs this.
        script = f"cd {folder}; date +%s.%N > begin; {command}; code=$?; date +%s.%N > end; exit $code"
        sandbox = [PROGRAMS / "streamduo-sandbox", "run", "--records", str(arguments.records)]
        process = subprocess.Popen([*sandbox, "--", "bash", "-o", "pipefail", "-c", script], stdout=log, stderr=log)
        peak = 0
        while process.poll() is None:
            peak = max([peak, *peaks(pathlib.Path(arguments.tap).resolve())])
            time.sleep(0.02)
        log.seek(0)
        said = log.read()
        if process.returncode != 0 or f"{arguments.records} marked as read, 0 unread" not in said:
            sys.exit(f"the run has failed:\n{said}")
        begin, end = (float(pathlib.Path(folder, name).read_text()) for name in ("begin", "end"))
        return end - begin, said.count(" is started\n"), peak


def peaks(program):
    """The largest resident set of each process of this program, in MB."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (process / "exe").resolve() == program:
                peak = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
                yield int(peak[1]) * 1024 / 1e6
        except (OSError, TypeError):
            pass  # it has ended


main()
