"""`forebay bench serve | compare | cache | engine | frontend | guard | soak | short`: load on servers, and figures."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from forebay.bench.flags import (
    CHAT,
    add_dataset,
    add_goodput,
    add_load,
    add_results,
    add_target,
    at_least_one,
    json_object,
    positive,
    read_plan,
    read_target,
    refuse_others,
    whole,
    with_results,
)
from forebay.bench.intervals import MIN_PAIRS
from forebay.bench.peers import PEERS
from forebay.errors import ConfigurationError
from forebay.settings import EngineName

if TYPE_CHECKING:
    from forebay.bench.serve import Ran

EXIT_FAILURES = 1


def add_bench_commands(bench: argparse.ArgumentParser) -> None:
    """Each sets `run`, which takes the arguments and returns the exit code."""
    commands = bench.add_subparsers(required=True, metavar="{serve,compare,cache,engine,frontend,guard,soak,short}")
    serve = commands.add_parser("serve", help="put a load on a server and measure it, at one or several rates")
    serve.add_argument("--base-url", default="http://127.0.0.1:8000", help="default %(default)s")
    compare = commands.add_parser("compare", help="two servers in turn, or two sets of results: ratios with intervals")
    compare.add_argument("first", metavar="A", nargs="?", help="a URL, a result file or a folder of them")
    compare.add_argument("second", metavar="B", nargs="?", help="the same; the same load goes to both URLs")
    compare.add_argument(
        "--peer",
        choices=PEERS,
        help="in place of A and B: Forebay against this server, both started here on the same --model: "
        + "; ".join(f"{name}: {what}" for name, what in PEERS.items()),
    )
    compare.add_argument("--kv-cache-mib", type=at_least_one, help="of each vLLM with --peer, default 1024")
    compare.add_argument("--pairs", type=whole, default=7, help="default %(default)s, no fewer")
    compare.add_argument("--json", action="store_true", help="one JSON object")
    for parser in (serve, compare):
        add_target(parser)
        add_load(parser)
        add_dataset(parser)
        add_goodput(parser)
    add_results(serve)
    serve.set_defaults(run=_serve)
    compare.set_defaults(run=partial(_compare, compare))
    _add_cache(commands)
    _add_own(commands)


def _add_cache(commands: Any) -> None:
    cache = commands.add_parser("cache", help="questions that come again, in the same or other words: hits and savings")
    cache.add_argument("--base-url", default="http://127.0.0.1:8000", help="default %(default)s")
    add_target(cache)
    add = cache.add_argument_group("load").add_argument
    add("--num-requests", type=at_least_one, default=2000, help="default %(default)s")
    add("--num-questions", type=at_least_one, default=200, help="different ones, default %(default)s")
    add("--skew", type=float, default=1.0, help="exponent of Zipf's law, default %(default)g")
    add("--reworded", type=float, default=0.3, help="share of requests in other words, default %(default)g")
    add("--max-tokens", type=at_least_one, default=128, help="of an answer; those that it cuts short are not stored")
    add("--max-concurrency", type=at_least_one, default=8, help="requests at once, default %(default)s")
    add("--no-stream", action="store_true", help="ask for whole answers")
    add("--extra-body", type=json_object, default={}, metavar="JSON", help="fields for every request's body")
    add("--seed", type=int, default=0, help="default %(default)s")
    add("--json", action="store_true", help="one JSON object")
    cache.set_defaults(run=_cache)


def _add_own(commands: Any) -> None:
    """Those that start the server themselves."""
    frontend = commands.add_parser("frontend", help="what the front end costs, engine aside")
    frontend.add_argument("--scale", type=positive, default=1.0, help="of the numbers of requests, default 1")
    frontend.add_argument("--open-streams", type=whole, default=2000, help="default %(default)s")
    frontend.set_defaults(run=_frontend)
    engine = commands.add_parser("engine", help="tokens a second through HTTP against the bare engine's, in turn")
    engine.add_argument("--engine", choices=get_args(EngineName), default="auto", help="default %(default)s")
    engine.add_argument("--model", help="a directory or a hub id; default: the demo model")
    engine.add_argument("--streams", type=at_least_one, nargs="+", default=[16, 32], help="at once, default 16 32")
    engine.add_argument("--pairs", type=whole, default=MIN_PAIRS, help="default %(default)s, no fewer")
    engine.add_argument("--tokens", type=at_least_one, default=64, help="of each answer, default %(default)s")
    engine.add_argument("--input-len", type=at_least_one, default=32, help="tokens of a prompt, default %(default)s")
    engine.set_defaults(run=_engine)
    guard = commands.add_parser(
        "guard", help="the front end against a raw ASGI app; exit code 1 where it has slowed down"
    )
    guard.add_argument("baseline", type=Path, help="benchmarks/frontend_baseline.json")
    guard.add_argument("--write", action="store_true", help="write it; on a quiet machine")
    guard.add_argument("--scale", type=positive, default=1.0, help="of the numbers of requests, default 1")
    guard.set_defaults(run=_guard)
    soak = commands.add_parser("soak", help="minutes of mixed load with clients that leave; exit code 1 for faults")
    soak.add_argument("--minutes", type=positive, default=10.0, help="default %(default)g")
    soak.add_argument("--rate", type=positive, default=100.0, help="requests/s, default %(default)g")
    soak.add_argument("--seed", type=int, default=0, help="default %(default)s")
    soak.set_defaults(run=_soak)
    short = commands.add_parser("short", help="front end and a model in a few minutes, as JSON and HTML")
    short.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="default %(default)s")
    short.add_argument("--engine", default="auto", help="of the model, default %(default)s")
    short.add_argument("--model", help="default: the demo model")
    short.add_argument("--scale", type=positive, default=1.0, help="of the numbers of requests, default 1")
    short.set_defaults(run=_short)


def _serve(args: argparse.Namespace) -> int:
    from forebay.bench.environment import environment
    from forebay.bench.quick import run_quick
    from forebay.bench.report import check_charts, write_report
    from forebay.bench.results import write_results
    from forebay.bench.serve import run_plan
    from forebay.bench.summary import summary

    plan = with_results(read_plan(args, args.base_url), args)
    folder: Path | None = args.result_dir
    if args.report:
        check_charts()
        folder = folder or Path()
    where = environment()
    ran = run_quick(run_plan(plan, lambda each: print(summary(each.step.name, each.result), flush=True)))
    if folder is not None:
        paths = write_results(folder, ran, where, detailed=args.save_detailed)
        paths += write_report(folder, plan.label, ran, where) if args.report else []
        print("\n".join(str(path) for path in paths))
    return EXIT_FAILURES if any(each.result["failed"] for each in ran) else 0


def _compare(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from forebay.bench.compare import as_json, compare, table
    from forebay.bench.environment import environment
    from forebay.bench.results import read_results
    from forebay.cli_data import print_json

    places = [place for place in (args.first, args.second) if place is not None]
    are_urls = [place.startswith(("http://", "https://")) for place in places]
    if len(places) != (0 if args.peer else 2):
        raise ConfigurationError("Compare A and B, or give --peer.")
    where = {"environment": environment()}
    if args.peer or all(are_urls):
        sides = _run_pairs(args)
    elif not any(are_urls):
        sides = (read_results(Path(args.first)), read_results(Path(args.second)))
        why = "results were measured already, it changes nothing about them."
        refuse_others(parser, args, "command", "first", "second", "json", why=why)
        where = {}  # theirs is in them
    else:
        raise ConfigurationError("Compare two URLs or two sets of results.")
    compared = compare(*sides)
    if args.json:
        print_json({"compare": as_json(compared)} | where)
    else:
        print(table(compared))
    return 0


def _run_pairs(args: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from forebay.bench.compare import run_pairs
    from forebay.bench.quick import run_quick
    from forebay.bench.side_by_side import REST_S, side_by_side

    if args.kv_cache_mib and not args.peer:
        raise ConfigurationError("--kv-cache-mib: only servers of --peer are started here.")
    plan = read_plan(args, args.first or "")
    if len(plan.steps) != 1 or args.pairs < MIN_PAIRS:
        raise ConfigurationError(f"Servers are compared under one load, {MIN_PAIRS} pairs at least.")
    with (
        side_by_side(args.peer, args.model, args.kv_cache_mib or 1024, plan, _note)
        if args.peer
        else nullcontext((plan, read_plan(args, args.second)))
    ) as plans:
        rest_s = REST_S if args.peer else 0.0
        ran = run_quick(run_pairs(*plans, args.pairs, None if args.json else _show_pair, rest_s=rest_s))
    return [each.result for each in ran[0]], [each.result for each in ran[1]]


def _cache(args: argparse.Namespace) -> int:
    from forebay.bench.cache_replay import Load, Replay, run_replay
    from forebay.bench.environment import environment
    from forebay.bench.progress import Progress
    from forebay.bench.quick import run_quick
    from forebay.cli_data import print_json

    if args.endpoint != CHAT:
        raise ConfigurationError(f"Questions are asked of {CHAT} only.")
    replay = Replay(args.num_requests, args.num_questions, args.skew, args.reworded, args.seed)
    load = Load(args.model, args.max_tokens, args.max_concurrency, not args.no_stream, args.extra_body)
    where, progress = environment(), Progress("cache", args.num_requests)
    found = run_quick(run_replay(read_target(args, args.base_url), replay, load, progress.count))
    progress.close()
    if args.json:
        print_json({"cache": found, "environment": where})
    else:
        for name, value in found.items():
            print(f"{name:<30}{value:.3f}" if isinstance(value, float) else f"{name:<30}{value}")
    return EXIT_FAILURES if found["failed"] else 0


def _frontend(args: argparse.Namespace) -> int:
    from forebay.bench.environment import environment
    from forebay.bench.frontend import on_two_cores, run_frontend
    from forebay.cli_data import print_json

    where = environment()
    with on_two_cores() as server:
        found = run_frontend(server, scale=args.scale, num_open=args.open_streams, show=_note)
    print_json({"frontend": found, "environment": where})
    return 0


def _engine(args: argparse.Namespace) -> int:
    from forebay.bench.engine import run_engine
    from forebay.bench.environment import environment
    from forebay.cli_data import print_json

    if args.pairs < MIN_PAIRS or 0 in (args.tokens, args.input_len, *args.streams):
        raise ConfigurationError(f"bench engine: {MIN_PAIRS} pairs at least, and one token and stream.")
    where = environment()
    found = run_engine(
        args.engine,
        args.model,
        args.streams,
        num_pairs=args.pairs,
        input_len=args.input_len,
        output_len=args.tokens,
        show=_note,
    )
    print_json({"engine": found, "environment": where})
    return 0


def _guard(args: argparse.Namespace) -> int:
    from forebay.bench.environment import environment
    from forebay.bench.frontend import on_two_cores
    from forebay.bench.guard import losses, measure_ratios, read_baseline, write_baseline

    where = environment()
    baseline = None if args.write else read_baseline(args.baseline)
    with on_two_cores() as server:
        ratios = measure_ratios(server, scale=args.scale, show=_note)
    if baseline is None:
        write_baseline(args.baseline, ratios, where)
        return 0
    lost = losses(ratios, baseline)
    for sentence in lost:
        print(sentence)
    return EXIT_FAILURES if lost else 0


def _soak(args: argparse.Namespace) -> int:
    from forebay.bench.environment import environment
    from forebay.bench.soak import run_soak
    from forebay.cli_data import print_json

    where = environment()
    found, faults = run_soak(args.minutes, args.rate, args.seed, _note)
    print_json({"soak": found, "environment": where})
    for fault in faults:
        _note(fault)
    return EXIT_FAILURES if faults else 0


def _short(args: argparse.Namespace) -> int:
    from forebay.bench.short import run_short

    flags = ["--engine", args.engine, *(["--model", args.model] if args.model else [])]
    for path in run_short(args.out, flags, scale=args.scale, show=_note):
        print(path)
    return 0


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show_pair(first: Ran, second: Ran) -> None:
    rates = " against ".join(f"{ran.result['request_throughput']:.1f}" for ran in (first, second))
    print(f"pair: {rates} requests/s", flush=True)
