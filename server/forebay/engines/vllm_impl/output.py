"""What the engine process writes, read by a thread of ours into our log; never straight to our standard error."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import tempfile
import threading
from collections import deque
from pathlib import Path

RECORD_MARK = "\x1e"
"""Begins a line that is a log record: a JSON array of level, logger name and message. Others are plain text."""

NUM_KEPT_LINES = 40

MOST_SOCKET_BYTES = 107
"""Of a socket's path (unix(7))."""
SOCKET_NAME = "/forebay-12345678/01234567-89ab-cdef-0123-456789abcdef"
"""As long as our folder's and the name that vLLM gives a socket in it."""

logger = logging.getLogger("vllm.process")


class ProcessOutput:
    """A socket that the engine process connects its standard output to. Closed by `close` and by the process's end.

    While `starting`, warnings are logged at debug level: vLLM warns of every choice that differs from its defaults, and
    ours are on purpose. Plain text (progress bars, C++ libraries) is logged at debug level too, and its end is kept.
    """

    def __init__(self) -> None:
        self.starting = True
        self._tail: deque[str] = deque(maxlen=NUM_KEPT_LINES)
        self._last_error: str | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="forebay-", dir=_folder_for_sockets()))
        self.address = str(self.folder / "output")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._read, name="vllm-output", daemon=True)
        self._thread.start()

    @property
    def last_error(self) -> str | None:
        """The last line of the last error the process logged: of a traceback, the exception."""
        return self._last_error

    @property
    def tail(self) -> list[str]:
        """The last lines of plain text, oldest first."""
        return list(self._tail)

    def close(self, timeout_s: float = 1.0) -> None:
        """After the process has ended; idempotent."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        except OSError:
            logger.debug("output socket already closed")
        self._thread.join(timeout_s)
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # closed before the process came up
            return
        self._listener.close()
        with connection, connection.makefile("r", encoding="utf-8", errors="replace", newline="\n") as lines:
            for line in lines:
                self._log(line.rstrip("\r\n"))

    def _log(self, line: str) -> None:
        text, _, record = line.partition(RECORD_MARK)  # a progress bar may leave its line open
        if text.strip():
            self._tail.append(text)
            logger.debug("%s", text)
        if not record:
            return
        try:
            level, name, message = json.loads(record)
        except ValueError:  # cut short, by a process that died while it wrote
            self._tail.append(record)
            logger.debug("%s", record)
            return
        if level >= logging.ERROR and not name.startswith("py."):
            self._last_error = next((part for part in reversed(message.splitlines()) if part.strip()), None)
        if self.starting and level == logging.WARNING:
            level = logging.DEBUG
        logging.getLogger(name).log(level, "%s", message)


def _folder_for_sockets() -> str:
    """That for temporary files, unless its path is too long for a socket's."""
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder + SOCKET_NAME)) <= MOST_SOCKET_BYTES:
        return folder
    return "/tmp"  # noqa: S108 - what is made there has a name of chance and is its owner's alone (mkdtemp)
