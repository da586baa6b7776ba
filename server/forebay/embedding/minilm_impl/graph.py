"""The encoder's layers as an ONNX graph with 8-bit matrix products.

A text of twelve tokens does little arithmetic: in float32 the time goes into reading 42 MB of weights, which 8 bits
make a quarter of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from forebay.embedding.minilm_impl.model_files import BertShape

if TYPE_CHECKING:
    import numpy.typing as npt

    from forebay.embedding.minilm_impl.model_files import Weights

    Array = npt.NDArray[np.float32]

# Seven bits: x86 without VNNI adds two products in 16 bits and would saturate with eight, so that the same text would
# have another vector on another machine.
MAX_WEIGHT = 63
CONTRIB = "com.microsoft"


def encoder_graph(weights: Weights, shape: BertShape) -> bytes:
    """A serialised model: `embedded` (1, tokens, hidden), after the embedding layer, to `encoded` of the same shape.

    No mask: one text a run, so that nothing is padded.
    """
    graph = _Graph()
    hidden = "embedded"
    for number in range(shape.num_layers):
        hidden = _layer(graph, hidden, weights, f"encoder.layer.{number}.", shape)
    return graph.serialised("embedded", hidden, shape.hidden_size)


def _layer(graph: _Graph, hidden: str, weights: Weights, prefix: str, shape: BertShape) -> str:
    attention = f"{prefix}attention."
    kinds = [f"{attention}self.{kind}" for kind in ("query", "key", "value")]
    qkv = graph.linear(
        hidden,
        np.concatenate([weights[f"{kind}.weight"] for kind in kinds]),
        np.concatenate([weights[f"{kind}.bias"] for kind in kinds]),
    )
    attended = graph.node(
        "MultiHeadAttention", graph.nodes("Split", [qkv], 3, axis=2, num_outputs=3), CONTRIB, num_heads=shape.num_heads
    )

    def dense(name: str, given: str) -> str:
        return graph.linear(given, weights[f"{prefix}{name}.dense.weight"], weights[f"{prefix}{name}.dense.bias"])

    def add_and_norm(name: str, given: str, residual: str) -> str:
        norm = [graph.constant(weights[f"{prefix}{name}.LayerNorm.{part}"]) for part in ("weight", "bias")]
        epsilon = shape.layer_norm_epsilon
        return graph.node("SkipLayerNormalization", [given, residual, *norm], CONTRIB, epsilon=epsilon)

    mixed = add_and_norm("attention.output", dense("attention.output", attended), hidden)
    widened = graph.node("Gelu", [dense("intermediate", mixed)], CONTRIB)
    return add_and_norm("output", dense("output", widened), mixed)


class _Graph:
    """Nodes and constants in the making; every value gets a number for a name."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._num_values = 0

    def constant(self, array: npt.NDArray[np.generic]) -> str:
        name = self._name()
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        return self.nodes(kind, inputs, 1, domain, **attributes)[0]

    def nodes(self, kind: str, inputs: list[str], num_results: int, domain: str = "", **attributes: Any) -> list[str]:
        outputs = [self._name() for _ in range(num_results)]
        self._nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        return outputs

    def linear(self, given: str, weight: Array, bias: Array) -> str:
        """`weight` (out, in), one scale a row; what comes in is quantised as it comes."""
        scale = np.abs(weight).max(1) / MAX_WEIGHT
        quantised = np.rint(weight / scale[:, None]).astype(np.int8)
        constants = (quantised.T, scale.astype(np.float32), np.zeros(len(scale), np.int8), bias)
        inputs = [given, *(self.constant(array) for array in constants)]
        return self.node("DynamicQuantizeMatMul", inputs, CONTRIB)

    def serialised(self, first: str, last: str, hidden_size: int) -> bytes:
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "tokens", hidden_size]) for name in (first, last)
        ]
        graph = helper.make_graph(self._nodes, "encoder", ends[:1], ends[1:], self._constants)
        versions = [helper.make_opsetid("", 18), helper.make_opsetid(CONTRIB, 1)]
        serialised: bytes = helper.make_model(graph, opset_imports=versions, ir_version=9).SerializeToString()
        return serialised

    def _name(self) -> str:
        self._num_values += 1
        return f"v{self._num_values}"
