"""The parts of published chat templates that concern reasoning, written anew and short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from forebay.types import Message

_QWEN_HISTORY = (
    "{%- set reasoning = '' %}"
    "{%- if message.reasoning_content is string %}{%- set reasoning = message.reasoning_content %}"
    "{%- elif '</think>' in content %}"
    "{%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "{%- if loop.last %}{%- set content = '<think>\\n' + reasoning + '\\n</think>\\n\\n' + content %}{%- endif %}"
)
_OFF = (
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
)


def _chatml(assistant: str = "", generation: str = "") -> str:
    return (
        "{%- for message in messages %}{%- set content = message.content %}"
        "{%- if message.role == 'assistant' %}" + assistant + "{%- endif %}"
        "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}" + generation + "{%- endif %}"
    )


_DEEPSEEK_TURNS = (
    "{{ bos_token }}{%- for message in messages %}{%- if message['role'] == 'user' %}"
    "{{ '<｜User｜>' + message['content'] }}{%- elif message['role'] == 'assistant' %}"
    "{%- set content = message['content'].split('</think>')[-1] %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{%- endif %}{%- endfor %}"
)
_PLAIN_TURNS = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"

TEMPLATES: dict[str, str] = {
    "chatml": _chatml(),
    "qwen3": _chatml(_QWEN_HISTORY, _OFF),
    "qwen3_thinking": _chatml(_QWEN_HISTORY, "{{- '<think>\\n' }}"),
    "smollm3": _chatml(generation=_OFF),
    "deepseek_r1": _DEEPSEEK_TURNS + "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}",
    "deepseek_r1_first": _DEEPSEEK_TURNS + "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}",
    "deepseek_v31": _DEEPSEEK_TURNS
    + "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% if thinking %}{{ '<think>' }}{% else %}{{ '</think>' }}"
    "{% endif %}{% endif %}",
    "glm46": "[gMASK]<sop>{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>"
    "{% if m.reasoning_content is string and loop.last %}{{ '\\n<think>' + m.reasoning_content.strip() + '</think>' }}"
    "{% else %}{{ '\\n<think></think>' }}{% endif %}{{ '\\n' + m.content.strip() }}{% else %}<|{{ m.role }}|>\n"
    "{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{{ '\\n<think></think>' if (enable_thinking is defined and not enable_thinking) else '' }}{% endif %}",
    "kimi_k2_thinking": "{% for message in messages %}<|im_{{ message.get('name') or message['role'] }}|><|im_middle|>"
    "{% if message['role'] == 'assistant' %}<think>{{ message.get('reasoning_content', '') }}</think>{% endif %}"
    "{{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_assistant|><|im_middle|>{% endif %}",
    "minimax_m2": "{% for message in messages %}]~b]{{ message.role }}\n{% if message.role == 'tool' %}<response>"
    "{{ message.content }}</response>{% elif message.reasoning_content is string %}"
    "{{ '<think>\\n' ~ message.reasoning_content ~ '\\n</think>\\n\\n' }}{% endif %}{{ message.content }}[e~[\n"
    "{% endfor %}{% if add_generation_prompt %}{{ ']~b]ai' ~ '\\n' ~ '<think>' ~ '\\n' }}{% endif %}",
    "magistral": "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST]"
    "{{ message['content'] }}[/INST]{% elif message['content'] is string %}{{ message['content'] }}</s>{% else %}"
    "{% for block in message['content'] %}{% if block['type'] == 'thinking' %}[THINK]{{ block['thinking'] }}[/THINK]"
    "{% else %}{{ block['text'] }}{% endif %}{% endfor %}</s>{% endif %}{% endfor %}",
    "gemma4": "{% for message in messages %}{{ '<|turn>' + message['role'] + '\\n' }}"
    "{{ message['content'].split('<channel|>')[-1] | trim }}{{ '<turn|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|turn>model\\n' }}{% if not enable_thinking | default(false) %}{{ '<|channel>thought\\n<channel|>' }}"
    "{% endif %}{% endif %}",
    "seed_oss": "{%- set begin = '<seed:think>' -%}{%- set end = '</seed:think>' -%}{% for message in messages %}"
    "<seed:bos>{{ message.role }}\n{% if message.reasoning_content is string %}"
    "{{ begin + message.reasoning_content | trim + end }}{% endif %}{{ message.content }}<seed:eos>{% endfor %}"
    "{% if add_generation_prompt %}<seed:bos>assistant\n{% if thinking_budget is defined and thinking_budget == 0 %}"
    "{{ begin + '<seed:cot_budget_reflect>' }}{% endif %}{% endif %}",
    "granite32": _PLAIN_TURNS + "{% if thinking %}Write your thoughts after 'Here is my thought process:' and your "
    "response after 'Here is my response:'.{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "granite33": _PLAIN_TURNS
    + "{% if thinking %}Write your thoughts between <think></think> and your response between "
    "<response></response>.{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "hunyuan_a13b": "{% for message in messages %}{% if message['role'] == 'assistant' "
    "and '<answer>' in message['content'] and '</think>' in message['content'] %}"
    "{{ message['content'].split('<answer>')[-1].split('</answer>')[0] }}{% else %}"
    "{{ message['content'] }}{% endif %}<|extra_0|>{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n' }}{% endif %}",
    "command_a": "{% for message in messages %}<|START_OF_TURN_TOKEN|>{% if message.role == 'assistant' %}"
    "<|START_THINKING|>{{ message.reasoning_content }}<|END_THINKING|>{% endif %}{{ message.content }}{% endfor %}"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "gpt_oss": "{% for message in messages %}<|start|>{{ message.role }}{% if message.thinking %}<|channel|>analysis"
    "<|message|>{{ message.thinking }}<|end|>{% endif %}<|message|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
}


def render(
    name: str, messages: Sequence[Message] | str, *, add_generation_prompt: bool = True, **variables: Any
) -> str:
    """The prompt's text, in the kind of environment in which transformers renders; a string is one user's message."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATES[name])
    return template.render(messages=messages, add_generation_prompt=add_generation_prompt, bos_token="<s>", **variables)
