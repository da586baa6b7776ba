"""`forebay bench compare`: two servers in turn, or two sets of results."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forebay.bench.flags import (
    add_dataset,
    add_goodput,
    add_load,
    add_target,
    at_least_one,
    read_plan,
    refuse_others,
    refuse_unused,
    whole,
)
from forebay.bench.intervals import MIN_PAIRS
from forebay.bench.peers import PEERS
from forebay.bench.progress import note
from forebay.errors import ConfigurationError

if TYPE_CHECKING:
    from forebay.bench.serve import Ran


def add_compare(commands: Any) -> None:
    """To the commands of `forebay bench`."""
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
    add_target(compare)
    add_load(compare)
    add_dataset(compare)
    add_goodput(compare)
    compare.set_defaults(run=partial(_compare, compare))


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
        refuse_unused(parser, args)
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
        side_by_side(args.peer, args.model, args.kv_cache_mib or 1024, plan, note)
        if args.peer
        else nullcontext((plan, read_plan(args, args.second)))
    ) as plans:
        rest_s = REST_S if args.peer else 0.0
        ran = run_quick(run_pairs(*plans, args.pairs, None if args.json else _show_pair, rest_s=rest_s))
    return [each.result for each in ran[0]], [each.result for each in ran[1]]


def _show_pair(first: Ran, second: Ran) -> None:
    rates = " against ".join(f"{ran.result['request_throughput']:.1f}" for ran in (first, second))
    print(f"pair: {rates} requests/s", flush=True)
