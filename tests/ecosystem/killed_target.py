#!/usr/bin/env python3
"""A loader that dies in the middle of a load. It hands its input line by line to the real loader beside it, and then both die
by SIGKILL. The variable KILL says when: `after-150-lines`, or `after-a-state`, which is when the real loader has printed its
first STATE. The file `killed` in the working directory tells this death from another failure.
"""

import os
import pathlib
import signal
import subprocess
import sys
import threading

real = pathlib.Path(__file__).with_name("real-loader")
child = subprocess.Popen([real, *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def die():
    child.kill()
    child.wait()
    pathlib.Path("killed").touch()
    os.kill(os.getpid(), signal.SIGKILL)


def die_after_a_state():
    sys.stdout.buffer.write(child.stdout.readline())
    sys.stdout.buffer.flush()
    die()


if os.environ["KILL"] == "after-a-state":
    threading.Thread(target=die_after_a_state).start()
    try:
        for line in sys.stdin.buffer:
            child.stdin.write(line)
            child.stdin.flush()
        child.stdin.close()
    except BrokenPipeError:
        # The other thread has killed the real loader, and this process is next.
        pass
else:
    for _ in range(150):
        child.stdin.write(sys.stdin.buffer.readline())
    child.stdin.flush()
    die()
