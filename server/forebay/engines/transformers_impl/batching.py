"""Whether a model's rows can share steps over the paged cache, found out by trying."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from forebay.engines.transformers_impl.attention import NAME, PLAN, register
from forebay.engines.transformers_impl.kv import LayerShape

_NUM_TOKENS = 6
_TOLERANCE = {torch.float32: 1e-3}
"""Allowed relative difference between the logits of the model's own attention and ours; 0.05 in half precision."""
_HARMLESS = frozenset(
    ("position_ids", "use_cache", "output_attentions", "output_hidden_states", "output_router_logits")
)
_WIDTHS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
"""Kinds of layers that may restrict what a token attends to in their mask alone, and the setting that says how far."""
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


class NotPlain(Exception):
    """The model keeps or reads more than keys and values of every token; the message is the end of a sentence."""


@dataclass(frozen=True, slots=True)
class _Probe:
    """A plan that attends within one row and notes what each layer keeps of a token."""

    max_model_len: int
    layers: dict[int, LayerShape] = field(default_factory=dict)

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scale: float | None, extra: dict[str, Any]
    ) -> Tensor:
        for name, argument in extra.items():
            if argument is not None and name not in _HARMLESS and not self._changes_nothing(name, argument):
                raise NotPlain(f"its attention takes `{name}`")
        layer = getattr(module, "layer_idx", None)
        if not isinstance(layer, int) or layer in self.layers:
            raise NotPlain("its layers share keys and values")
        self.layers[layer] = LayerShape(key.shape[1], key.shape[2], value.shape[2])
        query, key, value = (states.transpose(0, 1).unsqueeze(0) for states in (query, key, value))
        grouped = query.shape[1] != key.shape[1]
        attended = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=grouped)
        return attended[0].transpose(0, 1)

    def _changes_nothing(self, name: str, argument: Any) -> bool:
        match name:
            case "sliding_window":
                return bool(argument >= self.max_model_len)
            case "is_causal":
                return bool(argument)
            case _:
                return False


@torch.inference_mode()
def adopt_paged_attention(model: Any, max_model_len: int) -> list[LayerShape]:
    """Make `model` attend through `attention.NAME`; returns what each of its layers keeps of a token.

    Raises NotPlain, with the model as it was, if that cannot be or changes what the model says.
    """
    config = model.config.get_text_config()
    rope_type = (getattr(config, "rope_parameters", None) or {}).get("rope_type")
    if rope_type in _LENGTH_DEPENDENT_ROPE:
        raise NotPlain(f"its {rope_type} positions depend on the longest row")
    for kind in dict.fromkeys(getattr(config, "layer_types", None) or ()):
        width = getattr(config, _WIDTHS[kind], None) if kind in _WIDTHS else None
        if width is not None and width < max_model_len:
            raise NotPlain(f"its layers of {kind.replace('_', ' ')} reach {width} tokens")
    own_attention = model.config._attn_implementation  # noqa: SLF001 - it has no public name
    probe = _Probe(max_model_len)
    register()
    try:
        expected = _last_logits(model)
        model.set_attn_implementation(NAME)
        _check_close(_last_logits(model, **{PLAN: probe}), expected)
        if sorted(probe.layers) != list(range(config.num_hidden_layers)):
            raise NotPlain("not all of its layers are attention")
    except Exception as error:
        model.set_attn_implementation(own_attention)
        if isinstance(error, NotPlain):
            raise
        raise NotPlain("its attention cannot be replaced") from error
    return [probe.layers[layer] for layer in range(config.num_hidden_layers)]


def _last_logits(model: Any, **extra: Any) -> Tensor:
    """Logits [1, vocab] of a short text, asked for as a step does."""
    positions = torch.arange(_NUM_TOKENS, device=model.device)
    logits: Tensor = model(
        input_ids=positions.unsqueeze(0),
        position_ids=positions.unsqueeze(0),
        use_cache=False,
        logits_to_keep=positions[-1:],
        **extra,
    ).logits[0]
    return logits.float()


def _check_close(found: Tensor, expected: Tensor) -> None:
    tolerance = _TOLERANCE.get(expected.dtype, 0.05)
    if not torch.linalg.vector_norm(found - expected) <= tolerance * torch.linalg.vector_norm(expected):
        raise NotPlain("other attention than its own changes its answers")
