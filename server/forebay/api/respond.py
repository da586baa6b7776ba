"""One generation, answered whole or as a stream; both consume the same iterator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
from starlette.responses import Response

from forebay.api.answers import Choice, collect
from forebay.api.frames import Frames
from forebay.api.sse import stream
from forebay.engines.base import EngineInfo
from forebay.generation import Generation
from forebay.observe.record import RequestRecord
from forebay.services import Services
from forebay.settings import Settings


def answer_head(prefix: str, kind: str, services: Services, info: EngineInfo, record: RequestRecord) -> dict[str, Any]:
    """What every answer and chunk of a request begins with."""
    return {
        "id": f"{prefix}-{record.request_id}",
        "object": kind,
        "created": record.created,
        "model": record.model,
        "system_fingerprint": services.fingerprint(info),
    }


async def respond(
    generation: Generation,
    record: RequestRecord,
    settings: Settings,
    *,
    frames: Frames | None,
    whole: Callable[[Sequence[Choice]], dict[str, Any]],
    num_choices: int,
) -> bytes | Response:
    """A stream of `frames` if given, else the body that `whole` makes of the finished choices."""
    if frames is not None:
        return await stream(generation, frames, record, settings)
    try:
        choices = await collect(generation, num_choices)
    finally:
        await generation.aclose()
    return orjson.dumps(whole(choices))
