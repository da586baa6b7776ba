"""`POST /generate`: a prompt in, a text out, for a first try by hand."""

from __future__ import annotations

from contextlib import aclosing

import orjson
from fastapi import APIRouter, Request

from forebay.api.answer_schemas import GenerateAnswer
from forebay.api.answers import collect
from forebay.api.direct import DirectRoute, takes
from forebay.api.idempotent import idempotent
from forebay.api.openapi import documented
from forebay.api.sampling import plain_sampling
from forebay.api.schemas import GenerateRequest
from forebay.engines.base import Engine
from forebay.observe.record import RequestRecord
from forebay.services import Services
from forebay.types import Caller, GenerationRequest, Prompt
from forebay.work import Work

router = APIRouter(route_class=DirectRoute)

DEFAULT_MAX_TOKENS = 128


@router.post("/generate", **documented(GenerateRequest, GenerateAnswer, "The text and how it ended."))
@takes(GenerateRequest, "completions")
@idempotent
async def generate(
    request: Request, body: GenerateRequest, caller: Caller, services: Services, record: RequestRecord
) -> bytes:
    """What the model writes after the prompt."""
    record.model = services.models.resolve(None, caller)

    async def prepare(engine: Engine) -> Work:
        prompt = Prompt(tuple(await engine.tokenize(body.prompt)), body.prompt)
        sampling = plain_sampling(
            body, engine.info, num_prompt_tokens=len(prompt.token_ids), default_max_tokens=DEFAULT_MAX_TOKENS
        )
        asked = GenerationRequest(record.request_id, prompt, sampling, whole=True)
        return Work([asked], can_clamp=body.max_tokens is None)

    generation = await services.pipeline.start(caller, record, 1, prepare)
    async with aclosing(generation):
        (choice,) = await collect(generation, 1)
    return orjson.dumps(
        {
            "text": choice.text,
            "prompt": body.prompt,
            "tokens_generated": generation.usage.completion_tokens,
            "finish_reason": choice.finish_reason,
        }
    )
