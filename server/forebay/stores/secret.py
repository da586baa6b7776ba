"""The installation's secret: what signs ledger heads and salts prefix caches."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from forebay.errors import ConfigurationError
from forebay.stores.sqlite import prepare_folder

NUM_BYTES = 32


def read_or_create_secret(folder: Path) -> bytes:
    """The data folder's own, made on first use and readable by its owner alone. Raises ConfigurationError."""
    path = folder / "secret"
    try:
        if not path.exists():
            prepare_folder(folder)  # one that has it may be read-only
            # Linked into place whole, so that whoever comes first wins and nobody reads half of it.
            draft = folder / f"secret.{os.getpid()}"
            fd = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(NUM_BYTES))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"The secret in {path} cannot be read: {exc}.") from exc
    if len(secret) < NUM_BYTES:
        raise ConfigurationError(f"The secret in {path} is shorter than {NUM_BYTES} bytes.")
    return secret
