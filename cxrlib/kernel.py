"""The kernel that notebooks run in: it ends with the run that started it, however that ended."""

import os
import runpy
import signal
import sys

PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl(2)


def end_with_parent() -> None:
    """Ask Linux to kill this process as soon as its parent is gone.

    ipykernel looks after its parent too, but once a second, not before it has started, and in
    older versions not where a desktop's session adopts orphans.
    """
    import ctypes

    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
    if str(os.getppid()) != os.environ.get("JPY_PARENT_PID", str(os.getppid())):
        os._exit(1)  # it is gone already


if __name__ == "__main__":
    if sys.platform == "linux":
        end_with_parent()
    runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
