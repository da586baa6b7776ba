"""The keys of `FOREBAY_API_KEYS` and of the key file: those with which an installation begins."""

from __future__ import annotations

import re
from pathlib import Path

from forebay.errors import ConfigurationError
from forebay.settings import Settings

MIN_KEY_CHARS = 16
MAX_KEY_CHARS = 256
COMMENT = re.compile(r"(?:^|\s)#")


def read_static_keys(settings: Settings) -> list[str]:
    """Of any format. Raises ConfigurationError for one that no header could carry, and for a file without any."""
    keys = [key.get_secret_value() for key in settings.api_keys]
    if settings.api_keys_file is not None:
        file_keys = read_key_file(settings.api_keys_file)
        if not file_keys:
            raise ConfigurationError(f"The key file {settings.api_keys_file} holds no key.")
        keys += file_keys
    for key in keys:
        _check(key)
    return keys


def read_key_file(path: Path) -> list[str]:
    """One key a line; `#` at a line's beginning or after white space starts a comment. Raises ConfigurationError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"The key file {path} cannot be read: {exc}.") from exc
    return [key for line in lines if (key := COMMENT.split(line, maxsplit=1)[0].strip())]


def _check(key: str) -> None:
    if not MIN_KEY_CHARS <= len(key) <= MAX_KEY_CHARS or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            f"An API key must be {MIN_KEY_CHARS} to {MAX_KEY_CHARS} printable ASCII characters without spaces."
        )
