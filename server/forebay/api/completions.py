"""`POST /v1/completions`."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Request
from starlette.responses import Response

from forebay.api.answer_schemas import Completion
from forebay.api.answers import completion_body
from forebay.api.deps import cache_controls
from forebay.api.direct import DirectRoute, takes
from forebay.api.frames import CompletionFrames
from forebay.api.idempotent import idempotent
from forebay.api.openapi import documented
from forebay.api.respond import answer_head, respond
from forebay.api.sampling import check_options, to_sampling
from forebay.api.schemas import CompletionRequest
from forebay.engines.base import Engine
from forebay.engines.token_ids import check_token_ids
from forebay.errors import InvalidRequest
from forebay.observe.record import RequestRecord
from forebay.services import Services
from forebay.types import Caller, GenerationRequest, Prompt
from forebay.work import Work

router = APIRouter(route_class=DirectRoute)

DEFAULT_MAX_TOKENS = 16


@router.post(
    "/v1/completions", **documented(CompletionRequest, Completion, "A text completion, or with `stream` its chunks.")
)
@takes(CompletionRequest, "completions")
@idempotent
async def create_completion(
    request: Request, body: CompletionRequest, caller: Caller, services: Services, record: RequestRecord
) -> bytes | Response:
    """What the model writes after each prompt; choice j of prompt i has index `i * n + j`."""
    settings = services.settings
    record.model = services.models.resolve(body.model, caller)
    record.user, record.metadata = record.user or body.user, body.metadata or {}
    record.stream = bool(body.stream)
    check_options(body, max_choices=settings.max_choices)
    num_choices = body.n or 1
    given = list_prompts(body, max_prompts=settings.max_prompts)
    num_sequences = num_choices * len(given)
    controls = cache_controls(request, services)

    async def prepare(engine: Engine) -> Work:
        prompts = [await read_prompt(engine, prompt, echo=bool(body.echo)) for prompt in given]
        requests = [
            GenerationRequest(
                f"{record.request_id}-{position}" if len(prompts) > 1 else record.request_id,
                prompt,
                to_sampling(
                    body,
                    engine.info,
                    num_prompt_tokens=len(prompt.token_ids),
                    max_tokens=body.max_tokens,
                    default_max_tokens=DEFAULT_MAX_TOKENS,
                    num_logprobs=body.logprobs,
                ),
                num_choices,
                metadata=record.metadata,
                whole=not record.stream,
            )
            for position, prompt in enumerate(prompts)
        ]
        ask = None
        if services.cache is not None and controls is not None:
            first = requests[0]
            ask = services.cache.ask_completion(first.prompt, first.sampling, controls, max_tokens=body.max_tokens)
        return Work(requests, can_clamp=body.max_tokens is None, ask=ask)

    generation = await services.pipeline.start(caller, record, num_sequences, prepare)
    prompts = [asked.prompt for asked in generation.requests]
    echoes = [prompt.text or "" if body.echo else "" for prompt in prompts for _ in range(num_choices)]
    logprobs = body.logprobs is not None
    head = answer_head("cmpl", "text_completion", services, generation.info, record)
    return await respond(
        generation,
        record,
        settings,
        frames=CompletionFrames(head, body.stream_options, echoes, logprobs=logprobs) if body.stream else None,
        whole=lambda choices: completion_body(head, choices, echoes, generation.usage, logprobs=logprobs),
        num_choices=num_sequences,
    )


def list_prompts(body: CompletionRequest, *, max_prompts: int) -> list[str] | list[list[int]]:
    """A string, strings, token ids, or lists of token ids, as a list of prompts. Raises `InvalidRequest`."""
    given = body.prompt
    single = isinstance(given, str) or (given and isinstance(given[0], int))
    prompts = cast(list[str] | list[list[int]], [given] if single else given)
    if not 1 <= len(prompts) <= max_prompts:
        raise InvalidRequest(f"`prompt` must hold 1 to {max_prompts} prompts.", param="prompt")
    return prompts


async def read_prompt(engine: Engine, prompt: str | list[int], *, echo: bool) -> Prompt:
    if isinstance(prompt, str):
        return Prompt(tuple(await engine.tokenize(prompt)), prompt)
    check_token_ids(prompt, engine.info.vocab_size, "prompt")
    return Prompt(tuple(prompt), await engine.detokenize(prompt) if echo else None)
