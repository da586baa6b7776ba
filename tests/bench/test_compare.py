"""`bench compare`: verdicts, and that two servers are asked the same in turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forebay.bench.compare import as_json, compare, table
from forebay.errors import ConfigurationError
from support.command import forebay
from support.server import ServerProcess


def results(values: list[float], field: str = "request_throughput") -> list[dict[str, Any]]:
    return [{field: value} for value in values]


def test_a_difference_counts_where_every_pair_has_it() -> None:
    """Seven pairs: better where all of them are, in the direction that is better for the figure."""
    (faster,) = compare(results([110.0, 120, 130, 105, 111, 140, 150]), results([100.0] * 7))
    assert (faster.verdict, faster.ratio.low, faster.ratio.median) == ("better", 1.05, 1.2)
    (slower,) = compare(results([11.0] * 7, "p99_ttft_ms"), results([10.0] * 7, "p99_ttft_ms"))
    assert slower.verdict == "worse"
    (unsure,) = compare(results([110.0, 120, 130, 99, 111, 140, 150]), results([100.0] * 7))
    assert unsure.verdict == "same"


def test_ratios_are_of_pairs_not_of_medians() -> None:
    """A machine that drifts hits both of a pair: tenfold drift leaves the ratio what it is."""
    drifting = [10.0, 20, 40, 60, 80, 90, 100]
    (each,) = compare(results([value * 1.1 for value in drifting]), results(drifting))
    assert each.ratio.low == pytest.approx(each.ratio.high) == pytest.approx(1.1)


def test_too_few_or_unpaired_results_are_refused() -> None:
    """Six pairs say nothing with 95% confidence worth publishing."""
    with pytest.raises(ConfigurationError, match="7 are needed"):
        compare(results([1.0] * 6), results([1.0] * 6))
    with pytest.raises(ConfigurationError, match="come in pairs"):
        compare(results([1.0] * 8), results([1.0] * 7))


def test_results_of_unlike_loads_or_with_failures_have_no_ratio() -> None:
    """The sentence says which field, and what is no figure."""
    good = {"request_throughput": 2.0, "max_concurrency": 4, "failed": 0}
    for other, sentence in (
        ({"failed": 3}, "B has 3 failures"),
        ({"max_concurrency": 64}, "not asked the same: max_concurrency 4 and 64"),
        ({"request_throughput": "x"}, "request_throughput of a result is no figure: 'x'"),
        ({"request_throughput": -5}, "no figure: -5"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            compare([good] * 7, [good | other] * 7)
    with pytest.raises(ConfigurationError, match="no figure in common"):
        compare([{}] * 7, [{}] * 7)


def test_a_figure_of_nothing_is_shown_without_a_ratio() -> None:
    """Goodput is asked for where one of them may have none."""
    (goodput,) = compare(results([5.0] * 7, "request_goodput"), results([0.0] * 7, "request_goodput"))
    assert (goodput.first, goodput.second, goodput.ratio, goodput.verdict) == (5, 0, None, "no ratio")
    assert as_json([goodput])["request_goodput"]["ratio"] is None
    assert table([goodput]).endswith("no ratio")


def test_two_servers_in_turn(server: ServerProcess, keyed_server: ServerProcess, tmp_path: Path) -> None:
    """Every figure of seven pairs with its interval; a server that refuses has no ratio."""
    load = ["--num-prompts", "4", "--max-concurrency", "2", "--output-len", "2", "--input-len", "4", "--json"]
    slow = '{"metadata":{"forebay_first_token_ms":"5"}}'
    same = forebay("bench", "compare", server.url, server.base_url, *load, "--extra-body", slow, data_dir=tmp_path)
    assert same.returncode == 0, same.stderr
    found = json.loads(same.stdout)["compare"]["median_ttft_ms"]
    assert found["pairs"] == 7
    assert found["ratio_95"][0] <= found["ratio"] <= found["ratio_95"][1]
    assert found["a"] >= 5
    assert json.loads(same.stdout)["environment"].keys() >= {"commit", "cpu", "packages"}
    refused = forebay("bench", "compare", server.url, keyed_server.url, *load, "--model", "scripted", data_dir=tmp_path)
    assert refused.returncode == 2
    assert "B fails: {'status_401': 4}" in refused.stderr


def test_two_folders_of_results(tmp_path: Path) -> None:
    """Files of other tools with the same fields do; the table says which figures are better."""
    for side, values in (("a", [1.0, 2, 3, 4, 5, 6, 7]), ("b", [2.0, 4, 6, 8, 10, 12, 14])):
        (tmp_path / side).mkdir()
        for number, value in enumerate(values):
            (tmp_path / side / f"{number}.json").write_text(json.dumps({"request_throughput": value}))
    ran = forebay("bench", "compare", str(tmp_path / "a"), str(tmp_path / "b"), data_dir=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "0.500 (0.500 to 0.500)" in ran.stdout
    useless = forebay(
        "bench", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--num-prompts", "9", data_dir=tmp_path
    )
    assert useless.returncode == 2
    assert "--num-prompts: results were measured already" in useless.stderr
    assert ran.stdout.rstrip().endswith("worse")
