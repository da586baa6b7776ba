"""`POST /tokenize` and `/detokenize`, with vLLM's fields."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from forebay.api import fields
from forebay.api.answer import json_answer
from forebay.api.answer_schemas import DetokenizeAnswer, TokenizeAnswer
from forebay.api.body import json_body
from forebay.api.chat import conversation
from forebay.api.deps import RecordDep, ServicesDep, TokensCaller
from forebay.api.openapi import documented
from forebay.api.schemas import DetokenizeRequest, TokenizeRequest
from forebay.engines.base import Engine
from forebay.engines.token_ids import check_token_ids
from forebay.errors import InvalidRequest

router = APIRouter()


@router.post("/tokenize", **documented(TokenizeRequest, TokenizeAnswer, "The token ids."))
async def tokenize(
    request: Request,
    body: Annotated[TokenizeRequest, Depends(json_body(TokenizeRequest, "tokens"))],
    caller: TokensCaller,
    services: ServicesDep,
    record: RecordDep,
) -> Response:
    """The token ids of a text, or of a conversation through the model's template."""
    services.models.resolve(body.model, caller)
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequest("Give either `prompt` or `messages`.", param="prompt")
    unread = fields.TOKENIZE_PROMPT if body.messages is None else fields.TOKENIZE_MESSAGES
    fields.screen({name: getattr(body, name) for name in unread}, unread, strict=True)

    async def read(engine: Engine) -> Response:
        if body.messages is None:
            token_ids = await engine.tokenize(body.prompt or "", body.add_special_tokens is not False)
        else:
            family = await services.family_of(engine)
            prompt = await engine.render(conversation(request, body.messages, body, caller, engine.info, family))
            token_ids = list(prompt.token_ids)
        # There may be millions of them.
        token_strs = await asyncio.to_thread(engine.token_strings, token_ids) if body.return_token_strs else None
        return json_answer(
            {
                "count": len(token_ids),
                "max_model_len": engine.info.max_model_len,
                "tokens": token_ids,
                "token_strs": token_strs,
            }
        )

    return await services.pipeline.read(record, read)


@router.post("/detokenize", **documented(DetokenizeRequest, DetokenizeAnswer, "The text."))
async def detokenize(
    request: Request,
    body: Annotated[DetokenizeRequest, Depends(json_body(DetokenizeRequest, "tokens"))],
    caller: TokensCaller,
    services: ServicesDep,
    record: RecordDep,
) -> Response:
    """The text of token ids."""
    services.models.resolve(body.model, caller)

    async def read(engine: Engine) -> Response:
        check_token_ids(body.tokens, engine.info.vocab_size, "tokens")
        return json_answer({"prompt": await engine.detokenize(body.tokens)})

    return await services.pipeline.read(record, read)
