"""The state machine that tells reasoning from answer in one choice's text, piece by piece."""

from __future__ import annotations

from enum import Enum, auto

from forebay.chat.reasoning_families import ReasoningFamily
from forebay.types import Prompt


class Part(Enum):
    """Where the reader of a choice stands."""

    OPENING = auto()
    """At the beginning: whitespace, or a prefix of an opening marker."""
    REASONING = auto()
    BETWEEN = auto()
    """After the block, where the answer's wrapper may stand."""
    ANSWER = auto()
    WRAPPED = auto()
    """In an answer whose wrapper has opened."""


class ReasoningSplitter:
    """Reads one choice. A block opens only where the text begins, whitespace aside, and there is at most one.

    What stands elsewhere and looks like a marker is text: an answer that explains `<think>` stays whole. The pieces
    handed out are the text itself, less the markers; how it was cut into pushes never shows. Only what may still become
    a marker is held back.
    """

    __slots__ = ("_family", "_held", "_inside_unless_opened", "num_after_end", "opened", "part")

    def __init__(self, family: ReasoningFamily, prompt: Prompt) -> None:
        self._family = family
        self._held = ""
        self._inside_unless_opened = False
        self.part = Part.OPENING
        self.opened = False
        """There is a block, closed by now or not."""
        self.num_after_end = 0
        """Characters of the push that closed the block which follow the closing marker."""
        self._begin(prompt)

    @property
    def undecided(self) -> bool:
        """What came so far belongs to the reasoning if a marker completes, else to the answer."""
        return self.part is Part.OPENING and not self._inside_unless_opened

    @property
    def settled(self) -> bool:
        """All that comes is answer, and nothing is held back."""
        return self.part is Part.ANSWER

    @property
    def reasoning(self) -> bool:
        return self.part is Part.REASONING or (self.part is Part.OPENING and self._inside_unless_opened)

    def push(self, text: str) -> tuple[str, str]:
        """Adds `text`; returns (reasoning, answer) that may be released now."""
        self._held += text
        reasoning = answer = ""
        if self.part is Part.OPENING:
            self._read_opening()
        if self.part is Part.REASONING:
            reasoning = self._read_reasoning()
        if self.part is Part.BETWEEN:
            self._read_between()
        if self.part is Part.ANSWER:
            answer, self._held = self._held, ""
        elif self.part is Part.WRAPPED:
            answer = self._read_wrapped()
        return reasoning, answer

    def flush(self) -> tuple[str, str]:
        """The end of the text: (reasoning, answer) that was held back, as what it was."""
        held, self._held = self._held, ""
        if self.reasoning:
            return held, ""
        end = self._family.answer_end
        if self.part is Part.WRAPPED and end and held.startswith(end):
            return "", ""
        self.part = Part.ANSWER
        return "", held

    def _begin(self, prompt: Prompt) -> None:
        """Where the prompt leaves the reader. Only its end counts: markers in earlier messages are a client's text."""
        if prompt.text is None:
            self._inside_unless_opened = self._family.starts_inside
            return
        template, prefill = _cut_prefill(prompt.text, prompt.prefill)
        tail = template.rstrip()
        if tail.endswith(tuple(start.rstrip() for start in self._family.starts)):
            self._inside_unless_opened = True
        elif tail.endswith(self._family.ends) and not prefill:
            self.part = Part.BETWEEN
        elif self._family.answer_start and tail.endswith(self._family.answer_start):
            self.part = Part.WRAPPED
        elif not prefill:
            self._inside_unless_opened = self._family.starts_inside
        if prefill:  # the answer's beginning, given by the client: read, never repeated
            self.push(prefill)
            self._held = ""

    def _read_opening(self) -> None:
        body = self._held.lstrip()
        for start in self._family.starts:
            if body.startswith(start):
                space = self._held[: len(self._held) - len(body)]
                self._held = space + body[len(start) :]
                self._inside_unless_opened = True
                break
        else:
            if any(start.startswith(body) for start in self._family.starts):
                return
        self.opened = self._inside_unless_opened
        self.part = Part.REASONING if self.opened else Part.BETWEEN

    def _read_reasoning(self) -> str:
        cut: tuple[int, str] | None = None
        for end in self._family.ends:
            at = self._held.find(end)
            if at >= 0 and (cut is None or at < cut[0]):
                cut = at, end
        if cut is None:
            return self._release(self._family.ends)
        at, end = cut
        reasoning, self._held = self._held[:at], self._held[at + len(end) :]
        self.num_after_end = len(self._held)
        self.part = Part.BETWEEN
        return reasoning

    def _read_between(self) -> None:
        start = self._family.answer_start
        body = self._held.lstrip()
        if start and body.startswith(start):
            self._held = body[len(start) :]
            self.part = Part.WRAPPED
        elif not (start and start.startswith(body)):
            self.part = Part.ANSWER

    def _read_wrapped(self) -> str:
        """Holds the wrapper's end back for as long as nothing but whitespace follows it."""
        end = self._family.answer_end or ""
        at = self._held.rfind(end)
        if at < 0 or self._held[at + len(end) :].strip():
            return self._release((end,))
        answer, self._held = self._held[:at], self._held[at:]
        return answer

    def _release(self, markers: tuple[str, ...]) -> str:
        """All that is held but the longest suffix that may still become one of `markers`."""
        held = self._held
        keep = len(held)
        for marker in markers:
            at = held.find(marker[0], max(0, len(held) - len(marker) + 1), keep)
            while at >= 0:
                if marker.startswith(held[at:]):
                    keep = at
                    break
                at = held.find(marker[0], at + 1, keep)
        self._held = held[keep:]
        return held[:keep]


def _cut_prefill(text: str, prefill: str) -> tuple[str, str]:
    """The prompt less the beginning of the answer that ends it; templates may trim what they write."""
    for written in (prefill, prefill.rstrip(), prefill.strip()):
        if written and text.endswith(written):
            return text[: -len(written)], written
    return text, ""
