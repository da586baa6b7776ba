"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import Response

from forebay.api.answer_schemas import ChatCompletion
from forebay.api.answers import chat_body
from forebay.api.body import note_ignored
from forebay.api.deps import cache_controls
from forebay.api.direct import DirectRoute, takes
from forebay.api.frames import ChatFrames
from forebay.api.idempotent import idempotent
from forebay.api.openapi import documented
from forebay.api.respond import answer_head, respond
from forebay.api.sampling import check_options, to_sampling
from forebay.api.schemas import ChatMessage, ChatRequest, TemplateBody
from forebay.api.template_kwargs import template_kwargs
from forebay.chat.messages import ignored_fields, to_chat
from forebay.chat.reasoning import ReasoningFamily
from forebay.engines.base import Engine, EngineInfo
from forebay.observe.record import RequestRecord
from forebay.services import Services
from forebay.types import Caller, Chat, GenerationRequest
from forebay.work import Work

router = APIRouter(route_class=DirectRoute)


@router.post(
    "/v1/chat/completions", **documented(ChatRequest, ChatCompletion, "A chat completion, or with `stream` its chunks.")
)
@takes(ChatRequest, "chat")
@idempotent
async def create_chat_completion(
    request: Request, body: ChatRequest, caller: Caller, services: Services, record: RequestRecord
) -> bytes | Response:
    """A model's answer to a conversation."""
    record.model = services.models.resolve(body.model, caller)
    record.user = record.user or body.user  # a trusted header says who asks, the body what it likes
    record.safety_identifier, record.metadata = body.safety_identifier, body.metadata or {}
    record.stream = bool(body.stream)
    check_options(body, max_choices=services.settings.max_choices)
    num_choices = body.n or 1
    controls = cache_controls(request, services)

    async def prepare(engine: Engine) -> Work:
        family = await services.family_of(engine)
        chat = conversation(request, body.messages, body, caller, engine.info, family)
        prompt = await engine.render(chat)
        if chat.prefill:
            prompt = replace(prompt, prefill=chat.prefill)
        sampling = to_sampling(
            body,
            engine.info,
            num_prompt_tokens=len(prompt.token_ids),
            max_tokens=body.max_completion_tokens or body.max_tokens,
            max_tokens_param="max_completion_tokens" if body.max_completion_tokens else "max_tokens",
            num_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        )
        if family is not None and family.hidden_by_skipping(engine.info.special_tokens):
            sampling = replace(sampling, skip_special_tokens=False)
        ask = None
        if services.cache is not None and controls is not None:
            max_tokens = body.max_completion_tokens or body.max_tokens
            include_reasoning = body.include_reasoning is not False
            ask = services.cache.ask_chat(
                chat, sampling, controls, max_tokens=max_tokens, include_reasoning=include_reasoning
            )
        asked = GenerationRequest(
            record.request_id, prompt, sampling, num_choices, metadata=record.metadata, whole=not record.stream
        )
        return Work(
            [asked],
            family,
            include_reasoning=body.include_reasoning is not False,
            can_clamp=body.max_completion_tokens is None and body.max_tokens is None,
            ask=ask,
        )

    generation = await services.pipeline.start(caller, record, num_choices, prepare)
    shape = {"logprobs": bool(body.logprobs), "reasoning_content": services.settings.reasoning_content}
    head = answer_head("chatcmpl", "chat.completion", services, generation.info, record)
    frames = None
    if body.stream:
        frames = ChatFrames({**head, "object": "chat.completion.chunk"}, body.stream_options, **shape)
    return await respond(
        generation,
        record,
        services.settings,
        frames=frames,
        whole=lambda choices: chat_body(head, choices, generation.usage, **shape),
        num_choices=num_choices,
    )


def conversation(
    request: Request,
    messages: Sequence[ChatMessage],
    body: TemplateBody,
    caller: Caller,
    info: EngineInfo,
    family: ReasoningFamily | None,
) -> Chat:
    """The messages as the model's template takes them; what it does not read of them is noted as ignored."""
    continues = bool(body.continue_final_message)
    chat = to_chat(
        messages,
        add_generation_prompt=not continues if body.add_generation_prompt is None else body.add_generation_prompt,
        continue_final_message=continues,
        template_kwargs=template_kwargs(body, info.chat_template),
        chat_template=info.chat_template,
        family=family,
        strict=caller.strict,
    )
    note_ignored(request, ignored_fields(messages, info.chat_template))
    return chat
