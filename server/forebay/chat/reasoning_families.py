"""How models mark their reasoning: a table of families, and the choice of one.

The facts come from the models' published chat templates and from the parser lists of vLLM 0.32 and SGLang, whose names
are kept where they exist. docs/reasoning.md shows the table to operators.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import structlog

from forebay.errors import ConfigurationError

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReasoningFamily:
    """One way of writing reasoning: `start`, reasoning, `end`, answer.

    `starts_inside`: an answer without an opening marker is reasoning too, until `end` (DeepSeek-R1). Without it only
    the prompt or a written `start` opens the block. `other_starts` and `other_ends` are further spellings of the
    markers. `answer_start` and `answer_end` wrap the answer of some models; they are dropped like the markers, and only
    as a wrapper: right after the block and at the very end of the text. `markers_are_special`: the markers are special
    tokens, which are seen only with `skip_special_tokens=False`. `end_id`: the token that is the closing marker, where
    one token is; it makes the count of reasoning tokens exact however the engine's deltas merge.
    """

    name: str
    start: str
    end: str
    starts_inside: bool = False
    markers_are_special: bool = False
    other_starts: tuple[str, ...] = ()
    other_ends: tuple[str, ...] = ()
    answer_start: str | None = None
    answer_end: str | None = None
    end_id: int | None = None

    @property
    def starts(self) -> tuple[str, ...]:
        return (self.start, *self.other_starts)

    @property
    def ends(self) -> tuple[str, ...]:
        return (self.end, *self.other_ends)

    def hidden_by_skipping(self, special_tokens: Collection[str] = ()) -> bool:
        """Whether `skip_special_tokens` would hide a marker; `special_tokens` are those of the tokenizer, if known."""
        markers = (*self.starts, *self.ends, self.answer_start, self.answer_end)
        return self.markers_are_special or any(marker in special_tokens for marker in markers)


_THINK = ReasoningFamily("think", "<think>", "</think>")

_LIKE_THINK = (
    *("deepseek_v3", "deepseek_v4", "exaone4", "glm45", "glm47", "granite4", "holo2", "kimi_k2", "lfm2"),
    *("ling3", "mimo", "minicpmv", "nemotron_v3", "phi4_reasoning", "poolside_v1", "qwen3", "smollm3"),
    "step3p5",
)
"""Models whose templates open the block, close it, or leave both to the model."""

_LIKE_R1 = ("deepseek_r1", "minimax_m2", "olmo3", "step3")
"""Models that reason always and may begin without the opening marker."""

_OWN_MARKERS = (
    ReasoningFamily("apriel", "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", starts_inside=True),
    ReasoningFamily(
        "cohere_command",
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        markers_are_special=True,
        answer_start="<|START_RESPONSE|>",
        answer_end="<|END_RESPONSE|>",
    ),
    replace(_THINK, name="ernie45", starts_inside=True, answer_start="<response>", answer_end="</response>"),
    ReasoningFamily("gemma4", "<|channel>thought\n", "<channel|>", markers_are_special=True),
    ReasoningFamily(
        "granite",
        "Here is my thought process:",
        "Here is my response:",
        other_starts=("Here's my thought process:",),
        other_ends=("Here's my response:",),
    ),
    replace(_THINK, name="granite33", answer_start="<response>", answer_end="</response>"),
    replace(_THINK, name="hunyuan_a13b", answer_start="<answer>", answer_end="</answer>"),
    ReasoningFamily(
        "k2_horizon",
        "<ifm|think>",
        "</ifm|think>",
        markers_are_special=True,
        other_starts=("<ifm|think_fast>", "<ifm|think_faster>"),
        other_ends=("</ifm|think_fast>", "</ifm|think_faster>"),
    ),
    ReasoningFamily("kimi", "◁think▷", "◁/think▷", markers_are_special=True),
    ReasoningFamily("minimax_m3", "<mm:think>", "</mm:think>", markers_are_special=True),
    ReasoningFamily(
        "mistral",
        "[THINK]",
        "[/THINK]",
        markers_are_special=True,
        other_starts=("<think>",),
        other_ends=("</think>",),
    ),
    ReasoningFamily("plamo3", "<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>", markers_are_special=True),
    # With a budget of 0 the template opens the block and a reflection inside it.
    ReasoningFamily(
        "seed_oss",
        "<seed:think>",
        "</seed:think>",
        markers_are_special=True,
        other_starts=("<seed:think><seed:cot_budget_reflect>",),
    ),
)

FAMILIES: Mapping[str, ReasoningFamily] = {
    family.name: family
    for family in (
        _THINK,
        *(replace(_THINK, name=name) for name in _LIKE_THINK),
        *(replace(_THINK, name=name, starts_inside=True) for name in _LIKE_R1),
        *_OWN_MARKERS,
    )
}

_DETECTED_BY: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("mistral", ("[/THINK]",)),
    ("cohere_command", ("<|END_THINKING|>",)),
    ("gemma4", ("<|channel>thought", "<channel|>")),
    ("seed_oss", ("</seed:think>",)),
    ("minimax_m3", ("</mm:think>",)),
    ("plamo3", ("<|plamo:end_think:plamo|>",)),
    ("k2_horizon", ("</ifm|think",)),
    ("kimi", ("◁/think▷",)),
    ("granite", ("Here is my response:",)),
    ("apriel", ("[BEGIN FINAL RESPONSE]",)),
    ("granite33", ("</think>", "<response></response>")),
    ("hunyuan_a13b", ("</think>", "<answer>")),
    ("ernie45", ("</think>", "<response>", "<|im_start|>")),
    ("think", ("</think>",)),
)
"""A family is detected by the first row whose strings all stand in the template."""

_CHANNELS: Mapping[str, tuple[str, ...]] = {
    "gpt-oss (harmony)": ("<|channel|>", "<|message|>"),
    "inkling": ("<|content_thinking|>",),
    "kimi_k3": ("<|open|>", "<|close|>", "<|sep|>"),
    "muse_glimmer": ("to=self", "<|eom|>"),
}
"""Formats that write whole channels instead of one marked block: recognised, not separated yet."""


def choose_family(setting: str, chat_template: str | None, model_id: str) -> ReasoningFamily | None:
    """The family by `setting`: a name of `FAMILIES`, `none`, or `auto`, which reads the template's text.

    `auto` never assumes reasoning that is not marked, except for a model whose id says DeepSeek-R1.
    Raises `ConfigurationError` for an unknown name.
    """
    name = setting.strip().lower().replace("-", "_")
    if name == "none":
        return None
    if name == "auto":
        return _detect(chat_template or "", model_id)
    if name not in FAMILIES:
        raise ConfigurationError(
            f"reasoning_family {setting!r} is not known. Known are auto, none, {', '.join(sorted(FAMILIES))}."
        )
    return FAMILIES[name]


def _detect(chat_template: str, model_id: str) -> ReasoningFamily | None:
    for channels, strings in _CHANNELS.items():
        if all(string in chat_template for string in strings):
            logger.warning("reasoning_not_separated", model=model_id, format=channels)
            return None
    for name, strings in _DETECTED_BY:
        if all(string in chat_template for string in strings):
            r1 = name == "think" and "deepseek_r1" in model_id.lower().replace("-", "_")
            return FAMILIES["deepseek_r1" if r1 else name]
    return None
