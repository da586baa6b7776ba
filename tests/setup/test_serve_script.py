"""`make serve`: which lock and which flags follow from ENGINE, MODEL, PORT and the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from locks import ROOT

RECORDER = '#!/bin/sh\necho "$@" >> "$RECORD"\n'
GPU = "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-0)'\n"
NO_GPU = "#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n"
PREPARE = "-m forebay model prepare"


@pytest.fixture
def serve(run, tmp_path: Path):
    """serve.sh with a Python that writes down what it is called with, on a machine with or without a GPU."""

    def call(engine: str, model: str = "", port: str = "", *, gpu: bool = False, **env: str):
        programs = tmp_path / "venv" / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        for name, text in (("python", RECORDER), ("nvidia-smi", GPU if gpu else NO_GPU)):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        record = tmp_path / "record"
        record.unlink(missing_ok=True)
        path = f"{programs}:/usr/bin:/bin"
        script = ROOT / "scripts" / "serve.sh"
        done = run(script, programs / "python", engine, model, port, PATH=path, RECORD=str(record), **env)
        return done, record.read_text().splitlines() if record.exists() else []

    return call


@pytest.mark.parametrize(
    ("engine", "gpu", "lock", "flag"),
    [
        ("", False, "transformers", " --engine transformers"),
        ("", True, "gpu", ""),
        ("transformers", False, "transformers", " --engine transformers"),
        ("transformers", True, "gpu", " --engine transformers"),
        ("vllm", False, "vllm-cpu", " --engine vllm"),
        ("vllm", True, "gpu", " --engine vllm"),
    ],
)
def test_lock_and_engine(serve, engine: str, gpu: bool, lock: str, flag: str) -> None:
    """The engine's lock is installed, the demo model prepared, then the server started with what was asked for.

    Without a GPU nobody gets vLLM unasked, also where it is installed.
    """
    done, calls = serve(engine, gpu=gpu)
    assert done.returncode == 0, done.stderr
    assert calls == [f"scripts/install.py {lock}", PREPARE, f"-m forebay serve{flag}"]


@pytest.mark.parametrize(("engine", "lock"), [("scripted", "base"), ("vllm", "vllm-cpu")])
def test_the_engine_of_the_environment_is_installed(serve, engine: str, lock: str) -> None:
    """FOREBAY_ENGINE counts as ENGINE does; the server reads it by itself."""
    done, calls = serve("", FOREBAY_ENGINE=engine)
    assert done.returncode == 0, done.stderr
    assert (calls[0], calls[-1]) == (f"scripts/install.py {lock}", "-m forebay serve")
    assert (PREPARE in calls) is (engine != "scripted")


def test_what_is_given_wins_over_the_environment(serve) -> None:
    """As a flag does."""
    calls = serve("scripted", port="9000", FOREBAY_ENGINE="vllm", FOREBAY_PORT="9001")[1]
    assert calls == ["scripts/install.py base", "-m forebay serve --engine scripted --port 9000"]


def test_make_passes_on_only_what_it_is_given(run, serve, tmp_path: Path) -> None:
    """`FOREBAY_PORT=9001 make serve` listens on 9001; `PORT=9000` is for those who do not know the settings."""
    serve("scripted")  # lays the recorder down
    venv, record = tmp_path / "venv", tmp_path / "record"
    (venv / "bin" / "pip").touch()
    for given, flags in (((), ""), (("PORT=9000", "ENGINE=scripted"), " --engine scripted --port 9000")):
        record.unlink()
        done = run(
            "make",
            "--no-print-directory",
            "-C",
            ROOT,
            "serve",
            f"VENV={venv}",
            *given,
            PATH=f"{venv / 'bin'}:/usr/bin:/bin",
            RECORD=str(record),
            FOREBAY_ENGINE="scripted",
            FOREBAY_PORT="9001",
        )
        assert done.returncode == 0, done.stderr
        assert record.read_text().splitlines()[-1] == f"-m forebay serve{flags}"


def test_without_a_gpu_it_says_what_vllm_would_bring(serve) -> None:
    """Only the choice that was left to `make serve` is explained."""
    assert "ENGINE=vllm" in serve("")[0].stdout
    assert "ENGINE=vllm" not in serve("", gpu=True)[0].stdout
    assert "ENGINE=vllm" not in serve("transformers")[0].stdout


def test_scripted_needs_the_base_lock_and_no_model(serve) -> None:
    """The scripted engine runs on the base lock alone."""
    assert serve("scripted")[1] == ["scripts/install.py base", "-m forebay serve --engine scripted"]


def test_a_named_model_replaces_the_demo_model(serve) -> None:
    """MODEL is passed on and the demo model is not prepared."""
    assert serve("transformers", "some/model")[1][1:] == ["-m forebay serve --engine transformers --model some/model"]


@pytest.mark.parametrize("name", ["FOREBAY_MODEL", "MODEL_NAME", "LOCAL_MODEL_PATH"])
def test_the_model_of_the_environment_replaces_the_demo_model(serve, name: str) -> None:
    """As MODEL does; the server reads it by itself."""
    assert PREPARE not in serve("transformers", **{name: "some/model"})[1]


def test_an_unknown_engine_is_refused(serve) -> None:
    """Nothing is installed for an engine that does not exist; the known ones are named."""
    done, calls = serve("vlm")
    assert (done.returncode, calls) == (2, [])
    assert "vllm, transformers or scripted" in done.stderr
