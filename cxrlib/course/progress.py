"""Where a long run is: one line that rewrites itself, or a line now and then in a log."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from contextlib import suppress
from typing import ClassVar


class Progress:
    """One notebook's progress under a title such as ``[3/7] 03_custom_cnn``.

    Where several run at once, the line that rewrites itself has a part for each.
    """

    running: ClassVar[list[Progress]] = []
    turn: ClassVar = threading.Lock()

    def __init__(self, title: str, stream=None):
        self.title, self.stream = title, stream or sys.stdout
        self.live = self.stream.isatty()
        self.start = time.monotonic()
        self.place, self.shown = "", ("", self.start)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Progress:
        if not self.live:
            self._write(f"{self.title}  started\n")
        self.running.append(self)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stopped.set()
        self.thread.join()
        self.running.remove(self)
        if self.live:
            self._write("\r\033[K")

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.start

    def move(self, number: int, total: int, heading: str) -> None:
        """Say which cell is running."""
        self.place = f"cell {number}/{total}  {heading}"
        if self.live:
            self._show()

    def _tick(self) -> None:
        while not self.stopped.wait(1):
            place, since = self.shown
            quiet = time.monotonic() - since
            if self.live or quiet >= 60 or (quiet >= 10 and place != self.place):
                self._show()

    def _show(self) -> None:
        self.shown = (self.place, time.monotonic())
        if not self.live:
            self._write(f"{self._text()}\n")
            return
        texts = [one._text() for one in self.running]
        width = (shutil.get_terminal_size().columns - 1) // len(texts)
        line = " ".join(text[: width - 1].ljust(width - 1) for text in texts)
        self._write(f"\r\033[K{line.rstrip()}")

    def _text(self) -> str:
        return f"{self.title}  {clock(self.seconds)}  {self.place}"

    def _write(self, text: str) -> None:
        with suppress(OSError), self.turn:  # the terminal may be closed meanwhile
            print(text, end="", file=self.stream, flush=True)


def clock(seconds: float) -> str:
    """Minutes and seconds, such as 0:23 or 81:05."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
