"""The scripted engine behind the engine seam."""

from __future__ import annotations

import structlog

from forebay.engines.base import EngineHealth, EngineInfo, EngineLoad
from forebay.engines.mailbox import DeltaMailbox
from forebay.engines.scripted.choice import Choice
from forebay.engines.scripted.directives import Directives, plain_directives, read_directives
from forebay.engines.scripted.job import Job
from forebay.engines.scripted.journal import Journal
from forebay.engines.scripted.loop import StepLoop
from forebay.engines.scripted.model import PseudoModel
from forebay.engines.scripted.tokenizer import CHAT_TEMPLATE, decode, encode, render_chat, token_text
from forebay.engines.scripted.vocabulary import SPECIALS, VOCAB_SIZE
from forebay.engines.token_ids import check_token_ids
from forebay.errors import ApiError, ContextTooLong, EngineUnavailable, InvalidRequest
from forebay.settings import Settings
from forebay.types import Chat, GenerationRequest, Prompt

logger = structlog.get_logger(__name__)

DEFAULT_MAX_MODEL_LEN = 8192
NOT_STARTED, CLOSED = "The engine is not started.", "The engine is closed."


class ScriptedEngine:
    """Answers from a pseudo-model or from the request's own script: see `directives` for what metadata can ask for.

    It honours every field of `Sampling`, counts steps and slots as a real engine does, and needs no model library. The
    same settings, prompt and sampling give the same tokens, with or without a seed.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._info = EngineInfo(
            engine="scripted",
            model_id="scripted",
            revision=None,
            max_model_len=settings.max_model_len or DEFAULT_MAX_MODEL_LEN,
            vocab_size=VOCAB_SIZE,
            num_slots=settings.max_num_seqs,
            device="cpu",
            dtype="none",
            chat_template=CHAT_TEMPLATE,
            special_tokens=frozenset(SPECIALS.values()),
            details={"seed": settings.scripted_seed},
        )
        self._plain = plain_directives(settings.scripted_first_token_ms, settings.scripted_inter_token_ms)
        self._model = PseudoModel(settings.scripted_seed)
        self._journal: Journal | None = None
        self._loop: StepLoop | None = None
        self._end: str | None = NOT_STARTED

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def start(self) -> None:
        if self._settings.scripted_journal is not None:
            self._journal = Journal(self._settings.scripted_journal)
        self._loop = StepLoop(self._settings.max_num_seqs, self._info.max_model_len, self._journal, self._die)
        self._end = None

    async def close(self, timeout_s: float) -> None:
        self._end = self._end or CLOSED
        if self._loop is not None:
            self._loop.end(EngineUnavailable(CLOSED))
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def health(self) -> EngineHealth:
        return EngineHealth(alive=self._end is None, reason=self._end)

    def load(self) -> EngineLoad:
        return EngineLoad(0, 0, 0.0, 0, 0) if self._loop is None else self._loop.load()

    async def render(self, chat: Chat) -> Prompt:
        token_ids, text = render_chat(chat.messages, chat.add_generation_prompt, chat.continue_final_message)
        return Prompt(tuple(token_ids), text)

    async def tokenize(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """There is no token that every text begins with, so `add_special_tokens` has nothing to add."""
        return encode(text)

    async def detokenize(self, token_ids: list[int]) -> str:
        check_token_ids(token_ids, VOCAB_SIZE, "tokens")
        return decode(token_ids)

    def token_strings(self, token_ids: list[int]) -> list[str]:
        check_token_ids(token_ids, VOCAB_SIZE, "tokens")
        return [token_text(token) for token in token_ids]

    def check(self, request: GenerationRequest) -> None:
        self._read(request)

    def generate(self, request: GenerationRequest) -> DeltaMailbox:
        directives = self._read(request)
        if self._end is not None or self._loop is None:
            raise EngineUnavailable(self._end or NOT_STARTED)
        prompt = request.prompt.token_ids
        job, context = Job(request, directives, self._loop.abort), self._model.start(prompt)
        max_tokens = min(request.sampling.max_tokens, self._info.max_model_len - len(prompt))
        for index in range(request.num_choices):
            self._loop.submit(Choice(job, index, self._model, context, max_tokens))
        return job.mailbox

    def _read(self, request: GenerationRequest) -> Directives:
        """What its metadata asks for. Raises what is wrong with it."""
        prompt, sampling = request.prompt.token_ids, request.sampling
        if not prompt:
            raise InvalidRequest("The prompt is empty.", param="prompt")
        limit = self._info.max_model_len
        if len(prompt) >= limit:
            raise ContextTooLong(
                f"The prompt has {len(prompt)} tokens; with one token of answer the context holds {limit}.",
                param="prompt",
            )
        check_token_ids(prompt, VOCAB_SIZE, "prompt")
        if sampling.stop_token_ids:
            check_token_ids(sampling.stop_token_ids, VOCAB_SIZE, "stop_token_ids")
        if sampling.logit_bias:
            check_token_ids(sampling.logit_bias, VOCAB_SIZE, "logit_bias")
        return read_directives(request.metadata, self._plain) if request.metadata else self._plain

    def _die(self, exc: Exception) -> ApiError:
        """What those who wait are told once a step has failed."""
        self._end = "The engine has died."
        logger.error("scripted_engine_died", exc_info=exc)
        return EngineUnavailable(self._end)
