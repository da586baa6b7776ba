"""The guard inside the engine process; free of vLLM.

The process ends with its parent. SIGINT and SIGTERM that a terminal or a service manager sends to the whole group must
not end it before the server has drained: the mask it inherits blocks them, and only the parent's SIGTERM is passed on.
What it writes goes to the parent, into its log.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any

from forebay.engines.vllm_impl.output import RECORD_MARK


def install_guard(ours: Mapping[str, Any]) -> None:
    """`ours` holds `output`, the address of the parent's socket, `folder`, its temporary directory, and `log_level`."""
    send_output_to(ours["output"], ours["log_level"])
    threading.Thread(target=_end_with_parent, args=(ours["folder"],), name="parent-guard", daemon=True).start()
    if signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, []):
        threading.Thread(target=_pass_on_parents_sigterm, name="sigterm-guard", daemon=True).start()


def send_output_to(address: str, level: str) -> None:
    """Connect standard output and error to the parent's socket, and log records with them, one JSON line each."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(connection.fileno(), 1)
        os.dup2(connection.fileno(), 2)
    handler = logging.StreamHandler(open(2, "w", buffering=1, encoding="utf-8", closefd=False))  # noqa: SIM115
    handler.setFormatter(_RecordLine())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(True)


class _RecordLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return RECORD_MARK + json.dumps([record.levelno, record.name, super().format(record)])


def _end_with_parent(folder: str) -> None:
    """`folder` is the parent's, which it removes itself unless it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)


def _pass_on_parents_sigterm() -> None:
    """vLLM's own handler only sets a flag and wakes the engine's loop: it may run on this thread."""
    while True:
        received = signal.sigwaitinfo([signal.SIGTERM])
        handler = signal.getsignal(signal.SIGTERM)
        if received.si_pid == os.getppid() and callable(handler):
            handler(signal.SIGTERM, None)
