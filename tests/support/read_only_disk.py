"""A file system of a test's own that turns read-only under a server that has its files open."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.server import ServerProcess

SIZE = 64 << 20


@dataclass(frozen=True)
class Disk:
    """ext4 in a file. It is mounted in a namespace of the server's own, and so gone with the server."""

    image: Path
    place: Path

    @property
    def folder(self) -> Path:
        """For a server's data."""
        return self.place / "data"

    def within(self, options: str = "rw") -> tuple[str, ...]:
        """What a command has to begin with to see it, mounted `rw` or `ro`."""
        # The one before may have ended a moment before its mount does; to mend a file system takes a writable one.
        script = f"""
            while [ -n "$(losetup -j "$0")" ]; do sleep 0.01; done
            mount -o loop,errors=remount-ro "$0" "$1" && mount -o remount,{options} "$1" && shift && exec "$@"
        """
        return ("unshare", "-m", "sh", "-c", script, str(self.image), str(self.place))


def new_disk(folder: Path) -> Disk | str:
    """Or why there can be none here."""
    if missing := [name for name in ("mkfs.ext4", "unshare", "nsenter", "losetup") if shutil.which(name) is None]:
        return f"{missing[0]} is not installed"
    disk = Disk(folder / "image", folder / "place")
    disk.place.mkdir()
    disk.image.touch()
    os.truncate(disk.image, SIZE)
    for words in (["mkfs.ext4", "-q", "-F", str(disk.image)], [*disk.within(), "mkdir", str(disk.folder)]):
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            return f"a file system cannot be mounted: {done.stderr.strip()}"
    return disk


def turn_read_only(server: ServerProcess, disk: Disk) -> None:
    """As the kernel does when the device fails: to remount it so is refused while a file is open for writing. It stays
    so until it is mounted anew."""
    inside(server, "mount", "-o", "remount,abort", str(disk.place))


def inside(server: ServerProcess, *words: str) -> str:
    """What a command says beside the server, which sees its disk."""
    assert server.process is not None
    done = subprocess.run(
        ["nsenter", "-m", "-t", str(server.process.pid), *words],
        env={**os.environ, **server.defaults, **server.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def forebay(server: ServerProcess, *words: str) -> str:
    return inside(server, sys.executable, "-m", "forebay", *words)


def alone(server: ServerProcess, disk: Disk, *words: str) -> subprocess.CompletedProcess[str]:
    """`forebay` after the server's end, on the disk mounted read-only."""
    return subprocess.run(
        [*disk.within("ro"), sys.executable, "-m", "forebay", *words],
        env={**os.environ, **server.defaults, **server.env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def settled(server: ServerProcess) -> dict[str, dict[str, Any]]:
    """Rows of settlements by request; the file is elsewhere for this process."""
    lines = map(json.loads, forebay(server, "ledger", "export").splitlines())
    rows = [line["row"] for line in lines if "row" in line]
    return {row["request_id"]: row for row in rows if row["kind"] == "settle"}
