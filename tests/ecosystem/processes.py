"""Runs programs, each in a process group of its own, so that whatever it starts can be ended with it."""

import os
import pathlib
import shlex
import signal
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = (ROOT / os.environ.get("CARGO_TARGET_DIR", "target")).resolve()
TAP = TARGET / "debug" / "tap-streamduo"
SANDBOX = TARGET / "debug" / "streamduo-sandbox"

# The virtual environments and the release build stay here between runs.
KEPT = TARGET / "ecosystem"
RELEASE_BUILD = KEPT / "build"

# A scheduler's PATH, with the tap on it.
PATH = f"{TAP.parent}:/usr/local/bin:/usr/bin:/bin"

# The longest that a program may run, in seconds. Only a program that hangs gets there.
TIMEOUT = 900


def is_set(switch):
    """Whether an environment variable such as ECOSYSTEM_ALL switches something on."""
    return os.environ.get(switch, "0") not in ("", "0")


def environment(**more):
    """This process's environment with these variables, but without settings of the tap, Meltano, PostgreSQL and Python."""
    prefixes = ("TAP_STREAMDUO", "MELTANO_", "PG", "SINGER_SDK_", "VIRTUAL_ENV", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | {name: str(value) for name, value in more.items()}


running = set()


def start(command, **options):
    """Starts a program. It ends with the check at the latest."""
    options = {"stdin": subprocess.DEVNULL, "env": environment()} | options
    process = subprocess.Popen([str(word) for word in command], start_new_session=True, **options)
    running.add(process)
    return process


def end(process):
    """Ends a program and what it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    running.discard(process)


def run(command, input=None, code=0, **options):
    """Runs a program to its end. The check fails unless the program ends with this exit code (None: any)."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    process = start(command, **(pipes | options))
    try:
        stdout, stderr = process.communicate(input, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{shlex.join(process.args)} did not end within {TIMEOUT} s")
    finally:
        end(process)
    if code is not None and process.returncode != code:
        last_lines = "\n".join(f"{stdout}\n{stderr}".strip().splitlines()[-25:])
        pytest.fail(f"{shlex.join(process.args)} ended with {process.returncode} instead of {code}:\n{last_lines}")
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
