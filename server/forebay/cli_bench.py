"""`forebay bench serve | compare`: load on servers, figures, comparisons, reports."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forebay.bench.flags import add_dataset, add_figures, add_load, add_target, read_plan, whole
from forebay.errors import ConfigurationError

if TYPE_CHECKING:
    from forebay.bench.serve import Ran

EXIT_FAILURES = 1


def add_bench_commands(bench: argparse.ArgumentParser) -> None:
    """Each sets `run`, which takes the arguments and returns the exit code."""
    commands = bench.add_subparsers(required=True, metavar="{serve,compare}")
    serve = commands.add_parser("serve", help="put a load on a server and measure it, at one or several rates")
    serve.add_argument("--base-url", default="http://127.0.0.1:8000", help="default %(default)s")
    serve.add_argument("--result-dir", type=Path, help="write JSON and CSV there")
    serve.add_argument("--report", action="store_true", help="PNG charts and one HTML file too; needs forebay[bench]")
    compare = commands.add_parser("compare", help="two servers in turn, or two sets of results: ratios with intervals")
    compare.add_argument("first", metavar="A", help="a URL, a result file or a folder of them")
    compare.add_argument("second", metavar="B", help="the same; the same load goes to both URLs")
    compare.add_argument("--pairs", type=whole, default=7, help="default %(default)s, no fewer")
    compare.add_argument("--json", action="store_true", help="one JSON object")
    for parser, run in ((serve, _serve), (compare, _compare)):
        add_target(parser)
        add_load(parser)
        add_dataset(parser)
        add_figures(parser)
        parser.set_defaults(run=run)


def _serve(args: argparse.Namespace) -> int:
    from forebay.bench.quick import run_quick
    from forebay.bench.report import check_charts, write_report
    from forebay.bench.results import write_results
    from forebay.bench.serve import run_plan
    from forebay.bench.summary import summary

    plan = read_plan(args, args.base_url)
    folder: Path | None = args.result_dir
    if args.report:
        check_charts()
        folder = folder or Path()
    ran = run_quick(run_plan(plan, lambda each: print(summary(each.step.name, each.result), flush=True)))
    if folder is not None:
        paths = write_results(folder, ran, detailed=args.save_detailed)
        paths += write_report(folder, plan.label, ran) if args.report else []
        print("\n".join(str(path) for path in paths))
    return EXIT_FAILURES if any(each.result["failed"] for each in ran) else 0


def _compare(args: argparse.Namespace) -> int:
    from forebay.bench.compare import as_json, compare, run_pairs, table
    from forebay.bench.intervals import MIN_PAIRS
    from forebay.bench.quick import run_quick
    from forebay.bench.results import read_results
    from forebay.cli_data import print_json

    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]]
    are_urls = [place.startswith(("http://", "https://")) for place in (args.first, args.second)]
    if all(are_urls):
        plans = [read_plan(args, url) for url in (args.first, args.second)]
        if len(plans[0].steps) != 1 or args.pairs < MIN_PAIRS:
            raise ConfigurationError(f"Servers are compared under one load, {MIN_PAIRS} pairs at least.")
        ran = run_quick(run_pairs(plans[0], plans[1], args.pairs, None if args.json else _show_pair))
        sides = ([each.result for each in ran[0]], [each.result for each in ran[1]])
    elif not any(are_urls):
        sides = (read_results(Path(args.first)), read_results(Path(args.second)))
    else:
        raise ConfigurationError("Compare two URLs or two sets of results.")
    compared = compare(*sides)
    if args.json:
        print_json(as_json(compared))
    else:
        print(table(compared))
    return 0


def _show_pair(first: Ran, second: Ran) -> None:
    rates = " against ".join(f"{ran.result['request_throughput']:.1f}" for ran in (first, second))
    print(f"pair: {rates} requests/s", flush=True)
