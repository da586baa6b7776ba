"""Where keys come from, how they are kept and compared, and what is served without any."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from forebay.errors import ConfigurationError, Unauthenticated
from forebay.exposure import check_exposure
from forebay.settings import Settings
from forebay.tenants.directory import Directory

KEY, OTHER = "fb-0123456789abcdef", "fb-fedcba9876543210"


def keys_of(tmp_path: Path, content: str | bytes) -> Directory:
    path = tmp_path / "keys"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Directory(Settings(api_keys_file=path))


def directory(*keys: str) -> Directory:
    return Directory(Settings(api_keys=",".join(keys)))


def test_keys_are_kept_as_digests() -> None:
    """CVE-2025-59425: what is held and compared is SHA-256 of the whole key, never the key or a part of it."""
    held = pickle.dumps(vars(directory(KEY)))
    assert KEY.encode() not in held
    assert KEY[3:].encode() not in held


async def test_every_character_counts() -> None:
    """CVE-2026-35030: keys that share their beginning are different keys with different ids."""
    first, second = KEY + "a", KEY + "b"
    keys = directory(first, second)
    assert await keys.authenticate(f"Bearer {first}") != await keys.authenticate(f"Bearer {second}")
    for wrong in (KEY, KEY + "c", first[1:], first.upper()):
        with pytest.raises(Unauthenticated):
            await keys.authenticate(f"Bearer {wrong}")


async def test_the_id_of_a_key_tells_nothing_of_it() -> None:
    """Ids are logged."""
    caller = await directory(KEY).authenticate(f"Bearer {KEY}")
    assert len(caller.key_id) == 12
    assert caller.key_id not in KEY


async def test_a_file_holds_a_key_a_line(tmp_path: Path) -> None:
    """Comments, blank lines and white space around are left out; a `#` inside a key is part of it."""
    keys = keys_of(tmp_path, f"# ours\n\n  {KEY}  # of the web shop\r\n\t{OTHER}#2\n")
    assert await keys.authenticate(f"Bearer {KEY}") != await keys.authenticate(f"Bearer {OTHER}#2")
    for no_key in (OTHER, "# ours", "of the web shop"):
        with pytest.raises(Unauthenticated):
            await keys.authenticate(f"Bearer {no_key}")


async def test_settings_and_file_add_up(tmp_path: Path) -> None:
    """Both sources count; the same key may be in both."""
    path = tmp_path / "keys"
    path.write_text(f"{OTHER}\n{KEY}\n")
    keys = Directory(Settings(api_keys=f"{KEY}, {KEY}x", api_keys_file=path))
    assert len({(await keys.authenticate(f"Bearer {key}")).key_id for key in (KEY, OTHER, f"{KEY}x")}) == 3


@pytest.mark.parametrize(
    "content",
    [
        "",
        "# only a comment\n",
        "\n\n",
        "short\n",
        "k" * 257,
        "with a space inside it\n",
        "\u00fcml\u00e4ut-0123456789\n",
        b"\xff\xfe" * 20,
    ],
)
def test_a_file_without_a_usable_key_refuses_to_start(tmp_path: Path, content: str | bytes) -> None:
    """Better no service than an open one, or one whose key is not the one that was meant."""
    with pytest.raises(ConfigurationError) as refusal:
        keys_of(tmp_path, content)
    assert "with a space" not in str(refusal.value)


def test_a_file_that_cannot_be_read_refuses_to_start(tmp_path: Path) -> None:
    """It is named, so that the operator finds it."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigurationError, match=str(path)):
            Directory(Settings(api_keys_file=path))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "127.0.0.1.example.org", "0", "2130706433"]
)
def test_a_bind_beyond_loopback_needs_a_key(tmp_path: Path, host: str) -> None:
    """175,000 open Ollama hosts: without a key it refuses to start, unless it is told to."""
    with pytest.raises(ConfigurationError, match="without a key"):
        check_exposure(Settings(host=host))
    empty = tmp_path / "empty"
    empty.write_text("# none yet\n")
    with pytest.raises(ConfigurationError, match="without a key"):
        check_exposure(Settings(host=host, api_keys_file=empty))
    check_exposure(Settings(host=host, api_keys=KEY))
    check_exposure(Settings(host=host, insecure_open=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
async def test_loopback_needs_none(host: str) -> None:
    """Who is on the machine is let in."""
    check_exposure(Settings(host=host))
    assert (await Directory(Settings(host=host)).authenticate(None)).key_id == "anonymous"
