"""The numbers vLLM starts with."""

from __future__ import annotations

import os
import re
import sysconfig
from pathlib import Path

import pytest

from forebay.engines.model_source import ModelSource
from forebay.engines.sizing import choose_threads
from forebay.engines.vllm_impl import thread_plan
from forebay.engines.vllm_impl.compiling import code_folder, obstacle_to_compiling
from forebay.engines.vllm_impl.environment import lent_environment, vllm_environment
from forebay.engines.vllm_impl.sizing import KvShape, choose_dtype, engine_args, kv_cache_bytes
from forebay.engines.vllm_impl.thread_plan import BIND, ThreadPlan, plan_threads
from forebay.errors import ConfigurationError
from forebay.settings import Settings

GIB = 1 << 30
LIBGOMP_SPIN_COUNT = 300_000
LOCAL = ModelSource("/models/some", "some", None, local=True)
HUB = ModelSource("owner/some", "owner/some", "abc", local=False)


def settings(**values: object) -> Settings:
    return Settings(_env_file=None, **values)


def test_the_kv_cache_holds_an_eighth_of_the_context_for_each_sequence() -> None:
    """With memory to spare: 64 sequences of an eighth of 8192 tokens, 20 KB a token."""
    assert kv_cache_bytes(settings(max_num_seqs=64), KvShape(20_000, 8192), free=100 * GIB) == 64 * 1024 * 20_000


def test_the_kv_cache_holds_one_whole_context() -> None:
    """However few sequences there are to be."""
    assert kv_cache_bytes(settings(max_num_seqs=2), KvShape(20_000, 8192), free=100 * GIB) == 8192 * 20_000


def test_the_kv_cache_takes_a_quarter_of_free_memory_at_most() -> None:
    """A large model on a small machine gets a shorter context, not the machine's memory."""
    assert kv_cache_bytes(settings(), KvShape(200_000, 131_072), free=8 * GIB) == 2 * GIB


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_dtype_by_setting(device: str) -> None:
    """A dtype that is set is used; on a GPU vLLM chooses otherwise, on a CPU we do."""
    assert choose_dtype(settings(dtype="float32"), device) == "float32"
    assert choose_dtype(settings(), device) in ({"auto"} if device == "cuda" else {"bfloat16", "float32"})


def test_arguments_on_a_cpu() -> None:
    """Blocks of 32 tokens, safetensors only, no code of the model's, the context as far as it fits."""
    args = engine_args(settings(kv_cache_memory_mib=64), LOCAL, "cpu")
    assert args["block_size"] == 32
    assert args["kv_cache_memory_bytes"] == 64 << 20
    assert args["load_format"] == "safetensors"
    assert args["trust_remote_code"] is False
    assert args["max_model_len"] == -1


@pytest.mark.skipif(not Path(sysconfig.get_path("include"), "Python.h").is_file(), reason="no headers of Python")
def test_a_model_is_compiled_where_that_is_possible(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Unless the settings say otherwise; the code is kept beside the models, and the next start finds it."""
    monkeypatch.delenv("CXX", raising=False)
    wanted = settings(cache_dir=tmp_path)
    assert engine_args(wanted, LOCAL, "cpu")["enforce_eager"] is False
    folder = Path(vllm_environment(wanted, LOCAL, "cpu")["TORCHINDUCTOR_CACHE_DIR"])
    assert folder.parent == tmp_path / "torch-inductor"
    assert list(folder.iterdir()) == []  # nothing of the trial is left
    assert engine_args(settings(enforce_eager=True), LOCAL, "cpu")["enforce_eager"] is True


@pytest.mark.parametrize(
    ("compiler", "folder", "said"),
    [
        ("no-such-compiler", "cache", "no C\\+\\+ compiler of the name 'no-such-compiler'"),
        ("ccache g++", "cache", "no C\\+\\+ compiler of the name 'ccache g\\+\\+'"),
        ("false", "cache", "false cannot build"),
        ("true", "cache", "true cannot build"),  # it made nothing that could be loaded
        ("true", "file/cache", "code cannot be built in"),
    ],
)
def test_where_a_model_cannot_be_compiled_it_runs_uncompiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str, folder: str, said: str
) -> None:
    """A compiler that is missing or broken, or a folder that takes nothing, keeps no server from starting."""
    monkeypatch.setenv("CXX", compiler)
    (tmp_path / "file").touch()
    wanted = settings(cache_dir=tmp_path / folder)
    assert engine_args(wanted, LOCAL, "cpu")["enforce_eager"] is True
    assert vllm_environment(wanted, LOCAL, "cpu")["TORCHDYNAMO_DISABLE"] == "1"
    assert re.search(said, obstacle_to_compiling(code_folder(wanted.cache_root)) or "")
    assert engine_args(settings(enforce_eager=False), LOCAL, "cpu")["enforce_eager"] is False


def test_arguments_on_a_gpu() -> None:
    """vLLM's own block size and memory share, compiled, the revision pinned."""
    args = engine_args(settings(max_model_len=4096), HUB, "cuda")
    assert args["enforce_eager"] is False
    assert args["revision"] == "abc"
    assert args["max_model_len"] == 4096
    assert not {"block_size", "kv_cache_memory_bytes", "gpu_memory_utilization"} & set(args)


def test_a_step_has_room_for_every_sequence() -> None:
    """vLLM refuses fewer tokens a step than sequences."""
    args = engine_args(settings(max_num_seqs=512, max_num_batched_tokens=64), LOCAL, "cpu")
    assert args["max_num_batched_tokens"] == 512


def test_a_local_model_never_asks_the_network() -> None:
    """The hub libraries are offline for a directory, and not for a hub id; usage is never reported."""
    local, hub = vllm_environment(settings(), LOCAL, "cpu"), vllm_environment(settings(), HUB, "cpu")
    assert local["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in hub
    assert (local["VLLM_NO_USAGE_STATS"], local["DO_NOT_TRACK"]) == ("1", "1")


def test_threads_spin_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the model's threads spin a little before they sleep; on a GPU nothing is said of them."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    on_cpu = vllm_environment(settings(), LOCAL, "cpu")
    assert 0 < int(on_cpu["GOMP_SPINCOUNT"]) < LIBGOMP_SPIN_COUNT
    assert "GOMP_SPINCOUNT" not in vllm_environment(settings(), LOCAL, "cuda")


def test_the_operators_wait_policy_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """libgomp heeds a spin count before a policy, so none is set beside the operator's own policy."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert "GOMP_SPINCOUNT" not in vllm_environment(settings(), LOCAL, "cpu")


@pytest.mark.parametrize(
    ("values", "environment", "num_threads"),
    [
        ({"cpu_threads": 3}, {"OMP_NUM_THREADS": "7"}, 3),
        ({}, {"OMP_NUM_THREADS": "7"}, 7),
        ({}, {"OMP_NUM_THREADS": "7,2"}, 7),
        ({}, {"OMP_NUM_THREADS": "all"}, None),
        ({}, {}, None),
    ],
)
def test_whose_number_of_threads_counts(
    values: dict[str, int], environment: dict[str, str], num_threads: int | None
) -> None:
    """The setting's, else the operator's OMP_NUM_THREADS, else ours; what is reported is what the process is given."""
    plan = plan_threads(settings(**values), environment)
    assert plan.num_threads == (num_threads or choose_threads(settings()))
    assert plan.variables["OMP_NUM_THREADS"] == str(plan.num_threads)


def test_the_operators_binding_is_honoured() -> None:
    """vLLM's variable keeps the threads on the CPUs it names, as many as it names unless the setting says otherwise."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    bound = {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cpus)), "OMP_NUM_THREADS": "7"}
    plan = plan_threads(settings(), bound)
    assert (plan.num_threads, plan.cpus) == (len(cpus), tuple(cpus))
    assert plan.variables["OMP_PROC_BIND"] == "true"
    assert plan.variables["OMP_PLACES"] == f"{{{plan.binding}}}"
    assert plan.places == [[cpu] for cpu in cpus] or len(cpus) == 1
    other = plan_threads(settings(cpu_threads=len(cpus) + 1), bound)
    assert (other.variables["OMP_NUM_THREADS"], other.own_cpus) == (str(len(cpus) + 1), ())
    assert other.variables["OMP_PLACES"] == f"{{{plan.binding}}}"
    assert other.binding == plan.binding


def test_as_many_threads_as_cores_have_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer or more run where they like, and so does one alone, and all where the operator has decided or a quota lends
    a part of the cores. A core's place is all of its CPUs."""
    monkeypatch.setattr(thread_plan, "usable_cpus", lambda *, one_node: [0, 1])
    monkeypatch.setattr(thread_plan, "siblings_of", lambda cpu: [cpu, cpu + 2])
    monkeypatch.setattr(thread_plan, "has_quota", lambda: False)
    for undecided in ({}, {BIND: "auto"}, {BIND: ""}):
        plan = plan_threads(settings(), undecided)
        assert (plan.num_threads, plan.own_cpus, plan.binding) == (2, (0, 1), "0,1")
        assert (plan.places, plan.variables) == ([[0, 2], [1, 3]], {"OMP_NUM_THREADS": "2"})
    for decided in ({BIND: "nobind"}, {"OMP_PROC_BIND": "close"}, {"GOMP_CPU_AFFINITY": "0"}, {"OMP_PLACES": "cores"}):
        assert plan_threads(settings(), decided) == ThreadPlan(2)
    for number in (1, 3):
        assert plan_threads(settings(cpu_threads=number), {}) == ThreadPlan(number)
    monkeypatch.setattr(thread_plan, "has_quota", lambda: True)
    assert plan_threads(settings(), {}) == ThreadPlan(2)
    monkeypatch.setattr(thread_plan, "has_quota", lambda: False)
    monkeypatch.setattr(thread_plan, "usable_cpus", lambda *, one_node: [0])
    assert plan_threads(settings(), {}) == ThreadPlan(1)


@pytest.mark.parametrize("value", ["0|1", "all", "100000"])
def test_a_binding_that_cannot_be_had_is_refused(value: str) -> None:
    """Lists for several processes, no list, CPUs that are not ours: the operator reads which variable is meant."""
    with pytest.raises(ConfigurationError, match="VLLM_CPU_OMP_THREADS_BIND is"):
        plan_threads(settings(), {"VLLM_CPU_OMP_THREADS_BIND": value})


def test_the_environment_is_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the operator set stays, but for what is fixed inside the block; what was not set is there inside it only,
    and so is what the block sets."""
    monkeypatch.setenv("FOREBAY_TEST_SET", "theirs")
    monkeypatch.delenv("FOREBAY_TEST_UNSET", raising=False)
    monkeypatch.setenv("FOREBAY_TEST_FIXED", "theirs")
    defaults = {"FOREBAY_TEST_SET": "ours", "FOREBAY_TEST_UNSET": "ours"}
    with lent_environment(defaults, {"FOREBAY_TEST_FIXED": "ours"}):
        assert os.environ["FOREBAY_TEST_FIXED"] == "ours"
        assert (os.environ["FOREBAY_TEST_SET"], os.environ["FOREBAY_TEST_UNSET"]) == ("theirs", "ours")
        os.environ["FOREBAY_TEST_SET"] = "changed"
        os.environ["FOREBAY_TEST_LEFT"] = "behind"
    assert (os.environ["FOREBAY_TEST_SET"], os.environ["FOREBAY_TEST_FIXED"]) == ("theirs", "theirs")
    assert "FOREBAY_TEST_UNSET" not in os.environ
    assert "FOREBAY_TEST_LEFT" not in os.environ
