"""`forebay bench serve | compare | cache | engine | frontend | guard | soak | short`: load on servers, and figures."""

from __future__ import annotations

import argparse
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
    refuse_results,
    refuse_unused,
    share,
    skew,
    soak_rate,
    whole,
    with_results,
)
from forebay.bench.intervals import MIN_PAIRS
from forebay.bench.progress import note
from forebay.cli_compare import add_compare
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
    add_target(serve)
    add_load(serve)
    add_dataset(serve)
    add_goodput(serve)
    add_results(serve)
    serve.set_defaults(run=partial(_serve, serve))
    add_compare(commands)
    _add_cache(commands)
    _add_own(commands)


def _add_cache(commands: Any) -> None:
    cache = commands.add_parser("cache", help="questions that come again, in the same or other words: hits and savings")
    cache.add_argument("--base-url", default="http://127.0.0.1:8000", help="default %(default)s")
    add_target(cache)
    add = cache.add_argument_group("load").add_argument
    add("--num-requests", type=at_least_one, default=2000, help="default %(default)s")
    add("--num-questions", type=at_least_one, default=200, help="different ones, default %(default)s")
    add("--skew", type=skew, default=1.0, help="exponent of Zipf's law, default %(default)g")
    add("--reworded", type=share, default=0.3, help="share of requests in other words, default %(default)g")
    add("--max-tokens", type=at_least_one, default=128, help="of an answer; those that it cuts short are not stored")
    add("--max-concurrency", type=at_least_one, default=8, help="requests at once, default %(default)s")
    add("--no-stream", action="store_true", help="ask for whole answers")
    add("--extra-body", type=json_object, default={}, metavar="JSON", help="fields for every request's body")
    add("--seed", type=whole, default=0, help="default %(default)s")
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
    soak.add_argument("--rate", type=soak_rate, default=100.0, help="requests/s, default %(default)g")
    soak.add_argument("--seed", type=whole, default=0, help="default %(default)s")
    soak.set_defaults(run=_soak)
    short = commands.add_parser("short", help="front end and a model in a few minutes, as JSON and HTML")
    short.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="default %(default)s")
    short.add_argument("--engine", choices=get_args(EngineName), default="auto", help="of the model, default auto")
    short.add_argument("--model", help="default: the demo model")
    short.add_argument("--scale", type=positive, default=1.0, help="of the numbers of requests, default 1")
    short.set_defaults(run=_short)


def _serve(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from forebay.bench.environment import environment
    from forebay.bench.quick import run_quick
    from forebay.bench.report import check_charts, write_report
    from forebay.bench.results import check_folder, write_csv, write_step
    from forebay.bench.serve import run_plan
    from forebay.bench.summary import summary

    plan = with_results(read_plan(args, args.base_url), args)
    refuse_unused(parser, args)
    folder: Path | None = args.result_dir
    if args.report:
        check_charts()
        folder = folder or Path()
    if folder is not None:
        check_folder(folder, "--result-dir")
    else:
        refuse_results(parser, args)
    where = environment()
    ran: list[Ran] = []
    paths: list[Path] = []

    def keep(each: Ran) -> None:
        ran.append(each)
        if folder is not None:
            paths.append(write_step(folder, each, where, detailed=args.save_detailed))
        print(summary(each.step.name, each.result), flush=True)

    try:
        run_quick(run_plan(plan, keep))
    finally:  # what was measured is kept, whatever ends the run
        if folder is not None and ran:
            paths.append(folder / f"{plan.label}.csv")
            write_csv(paths[-1], [each.result for each in ran])
            paths += write_report(folder, plan.label, ran, where) if args.report else []
            print("\n".join(str(path) for path in paths), flush=True)
    failed = any(each.result["failed"] or each.result["num_warmups_failed"] for each in ran)
    return EXIT_FAILURES if failed else 0


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
        found = run_frontend(server, scale=args.scale, num_open=args.open_streams, show=note)
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
        show=note,
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
        ratios = measure_ratios(server, scale=args.scale, show=note)
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
    found, faults = run_soak(args.minutes, args.rate, args.seed, note)
    print_json({"soak": found, "environment": where})
    for fault in faults:
        note(fault)
    return EXIT_FAILURES if faults else 0


def _short(args: argparse.Namespace) -> int:
    from forebay.bench.short import run_short

    flags = ["--engine", args.engine, *(["--model", args.model] if args.model else [])]
    for path in run_short(args.out, flags, scale=args.scale, show=note):
        print(path)
    return 0
