"""Flags of the commands that put a load on a server, and what they come to."""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from forebay.bench.client import Target
from forebay.bench.datasets import DATASETS, DatasetOptions
from forebay.bench.figures import SLOS
from forebay.bench.plan import Plan, make_steps
from forebay.errors import ConfigurationError

MOST = 2**31
"""Of any number that is asked for."""
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
USED_BY = {
    "random": {"input_len", "output_len", "range_ratio", "prefix_len", "token_ids"},
    "prefix_repetition": {"input_len", "output_len", "prefix_len", "num_prefixes", "token_ids"},
    "multi_turn": {"input_len", "output_len", "range_ratio", "num_turns"},
    "cache_replay": {"input_len", "output_len", "num_distinct", "skew", "token_ids"},
    "custom": {"dataset_path", "output_len"},
    "sharegpt": {"dataset_path", "output_len"},
    "burstgpt": {"dataset_path", "output_len", "token_ids"},
}
"""Flags of a dataset; text, which chat wants, is made of words and not of token ids."""


def add_target(parser: argparse.ArgumentParser) -> None:
    """All about the server but its URL."""
    add = parser.add_argument_group("server").add_argument
    add("--endpoint", default=CHAT, choices=(CHAT, COMPLETIONS), help="default %(default)s")
    add("--model", help="default: the first that /v1/models names; with --peer what both load")
    add("--api-key", help="default: the variable OPENAI_API_KEY, which other users of this machine cannot see")
    add("--header", action="append", default=[], metavar="NAME=VALUE", help="in every request; may be repeated")
    add("--timeout-s", type=above_zero, default=600.0, help="of one request, default %(default)g")
    add("--insecure", action="store_true", help="believe any TLS certificate")


def add_load(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("load").add_argument
    add("--request-rate", type=above_zero, nargs="+", default=[float("inf")], help="requests/s, or inf (the default)")
    add("--burstiness", type=burstiness, default=1.0, help="gamma shape of the gaps: 1 Poisson, less is burstier")
    add(
        "--max-concurrency",
        type=at_least_one,
        nargs="+",
        default=[None],
        help="most requests at once; default no bound",
    )
    add("--num-prompts", type=at_least_one, nargs="+", default=[1000], help="requests a step, default 1000")
    add("--num-warmups", type=whole, default=0, help="requests before each step that are not counted")
    add("--no-stream", action="store_true", help="ask for whole answers")
    add("--ignore-eos", action="store_true", help="answers as long as asked for (vLLM, Forebay)")
    add("--self-timed", action="store_true", help="requests come when the dataset says")
    add("--extra-body", type=json_object, default={}, metavar="JSON", help="fields for every request's body")
    add("--seed", type=whole, help="default: another one each time, so that no cache knows the prompts")


def add_dataset(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("dataset").add_argument
    add("--dataset-name", choices=DATASETS, default="random", help="default %(default)s")
    add("--dataset-path", type=Path, help="of custom (JSON lines), sharegpt (JSON), burstgpt (CSV)")
    add("--input-len", type=at_least_one, default=128, help="tokens of a made-up prompt, default %(default)s")
    add("--output-len", type=at_least_one, help="tokens of an answer at most; default 128, or what the file says")
    add("--range-ratio", type=share, default=0.0, help="lengths vary by this share of themselves, default 0")
    add("--prefix-len", type=whole, default=0, help="tokens that prompts have in common")
    add("--num-prefixes", type=at_least_one, default=10, help="of prefix_repetition, default %(default)s")
    add("--num-turns", type=at_least_one, default=4, help="of multi_turn, default %(default)s")
    add("--num-distinct", type=at_least_one, default=100, help="prompts of cache_replay, default %(default)s")
    add("--skew", type=skew, default=1.0, help="of cache_replay: exponent of Zipf's law, default %(default)g")
    add("--token-ids", type=_range, default=range(1000, 30_000), metavar="LOW:HIGH", help="default 1000:30000")


def add_goodput(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--goodput", nargs="+", default=[], metavar="NAME:MS", help="SLOs on ttft, tpot, e2el")


def add_results(parser: argparse.ArgumentParser) -> None:
    """What is written, and where."""
    add = parser.add_argument_group("results").add_argument
    add("--result-dir", type=Path, help="write JSON and CSV there")
    add("--report", action="store_true", help="PNG charts and one HTML file too; needs forebay[bench]")
    add("--metric-percentiles", type=_percentiles, default=[50, 90, 95, 99], help="default 50,90,95,99")
    add("--label", default=time.strftime("forebay-bench-%Y%m%d-%H%M%S"), help="what files are called")
    add("--metadata", action="append", default=[], metavar="NAME=VALUE", help="written to the results")
    add("--save-detailed", action="store_true", help="add every request, with its text, to the results")


def read_target(args: argparse.Namespace, base_url: str) -> Target:
    return Target(
        base_url=base_url,
        endpoint=args.endpoint,
        api_key=args.api_key or os.environ.get("OPENAI_API_KEY"),
        headers=_pairs(args.header, "="),
        timeout_s=args.timeout_s,
        verify_tls=not args.insecure,
    )


def read_plan(args: argparse.Namespace, base_url: str) -> Plan:
    """Raises ConfigurationError for flags that do not go together."""
    slos_ms = _slos(args.goodput)
    if args.no_stream and (unmeasured := slos_ms.keys() - {"e2el"}):
        raise ConfigurationError(f"--goodput: a whole answer (--no-stream) has no {unmeasured.pop()}.")
    dataset = DatasetOptions(
        name=args.dataset_name,
        path=args.dataset_path,
        input_len=args.input_len,
        output_len=args.output_len,
        range_ratio=args.range_ratio,
        prefix_len=args.prefix_len,
        num_prefixes=args.num_prefixes,
        num_turns=args.num_turns,
        num_distinct=args.num_distinct,
        skew=args.skew,
        token_ids=args.token_ids,
    )
    return Plan(
        target=read_target(args, base_url),
        steps=make_steps(args.request_rate, args.max_concurrency, args.num_prompts),
        dataset=dataset,
        model=args.model,
        stream=not args.no_stream,
        ignore_eos=args.ignore_eos,
        extra_body=args.extra_body,
        burstiness=args.burstiness,
        self_timed=args.self_timed,
        num_warmups=args.num_warmups,
        slos_ms=slos_ms,
        seed=time.time_ns() % 2**31 if args.seed is None else args.seed,
    )


def with_results(plan: Plan, args: argparse.Namespace) -> Plan:
    """And the flags of `add_results`."""
    if not args.label or args.label.startswith(".") or {"/", "\0"} & set(args.label):
        raise ConfigurationError(f"--label: {args.label!r} is no name of a file.")
    return replace(
        plan,
        percentiles=args.metric_percentiles,
        label=args.label,
        metadata=_pairs(args.metadata, "="),
        keep_texts=args.save_detailed,
    )


def refuse_unused(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raises ConfigurationError that names a flag which the load has no use for."""
    used = USED_BY[args.dataset_name] - ({"token_ids"} if args.endpoint == CHAT else set())
    for name in sorted(set().union(*USED_BY.values()) - used):
        if getattr(args, name) != parser.get_default(name):
            raise ConfigurationError(f"{_flag(name)}: {args.dataset_name} on {args.endpoint} has no use for it.")
    timed = any(math.isfinite(rate) for rate in args.request_rate)
    if args.burstiness != parser.get_default("burstiness") and not timed:
        raise ConfigurationError("--burstiness: without --request-rate all come at once.")
    if args.self_timed and timed:
        raise ConfigurationError("--request-rate: with --self-timed the dataset says when requests come.")


def refuse_results(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raises ConfigurationError that names a flag of what is written, where nothing is."""
    for name in ("label", "metadata", "save_detailed"):
        if getattr(args, name) != parser.get_default(name):
            raise ConfigurationError(f"{_flag(name)}: nothing is written without --result-dir or --report.")


def refuse_others(parser: argparse.ArgumentParser, args: argparse.Namespace, *used: str, why: str) -> None:
    """Raises ConfigurationError that names a flag of the parser that was given and is none of the `used`."""
    for name, value in vars(args).items():
        if name not in used and value != parser.get_default(name):
            raise ConfigurationError(f"{_flag(name)}: {why}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _slos(words: list[str]) -> dict[str, float]:
    pairs = _pairs(words, ":")
    if unknown := pairs.keys() - set(SLOS):
        raise ConfigurationError(f"--goodput: {unknown.pop()!r} is none of {', '.join(SLOS)}.")
    try:
        return {name: positive(value) for name, value in pairs.items()}
    except ValueError as exc:
        raise ConfigurationError(f"--goodput: {exc}.") from exc


def _pairs(words: list[str], separator: str) -> dict[str, str]:
    split = [word.partition(separator) for word in words]
    if wrong := [word for word, (_, found, _) in zip(words, split, strict=True) if not found]:
        raise ConfigurationError(f"{wrong[0]!r} is not NAME{separator}VALUE.")
    names = [name for name, _, _ in split]
    if again := [name for name in names if names.count(name) > 1]:
        raise ConfigurationError(f"{again[0]!r} is given twice.")
    return {name: value for name, _, value in split}


def above_zero(text: str) -> float:
    """Also infinite."""
    value = float(text)
    if not value > 0:
        raise ValueError(f"{text} is not above 0")
    return value


def positive(text: str) -> float:
    return _within(above_zero(text), 0, MOST)


def burstiness(text: str) -> float:
    return _within(float(text), 0.001, 1e6)


def soak_rate(text: str) -> float:
    """Requests a second that one client can make."""
    return _within(above_zero(text), 0, 100_000)


def skew(text: str) -> float:
    return _within(float(text), 0, 100)


def whole(text: str) -> int:
    return int(_within(int(text), 0, MOST))


def at_least_one(text: str) -> int:
    return int(_within(int(text), 1, MOST))


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValueError(f"{value} is not from {low:g} to {high:g}")
    return value


def share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise ValueError(f"{text} is not from 0 to 1")
    return float(text)


def _range(text: str) -> range:
    low, _, high = text.partition(":")
    found = range(int(low), int(high))
    if not found or found.start < 0:
        raise ValueError(text)
    return found


def json_object(text: str) -> dict[str, Any]:
    value = orjson.loads(text)
    if not isinstance(value, dict):
        raise ValueError(text)
    return value


def _percentiles(text: str) -> list[float]:
    found = [float(word) for word in text.split(",")]
    if not all(0 < value <= 100 for value in found):
        raise ValueError(text)
    return found
