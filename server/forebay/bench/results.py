"""Result files: one JSON object a step, and one CSV for all of them."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from forebay.bench.serve import Ran, details, latencies
from forebay.errors import ConfigurationError


def check_folder(folder: Path, flag: str) -> None:
    """Makes it. Raises ConfigurationError that names `flag` where nothing can be written there: before a load, not
    after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as exc:
        raise ConfigurationError(f"{flag} {folder}: nothing can be written there: {exc.strerror}.") from exc


def write_step(folder: Path, ran: Ran, where: dict[str, Any], *, detailed: bool) -> Path:
    """`<label>-<step>.json`. `detailed` adds the lists of single requests.

    `where` is the environment, taken before anything was run.
    """
    path = folder / f"{ran.result['label']}-{ran.step.name}.json"
    lists = latencies(ran.outcomes) | (details(ran.outcomes) if detailed else {})
    path.write_bytes(orjson.dumps(ran.result | lists | {"environment": where}, option=orjson.OPT_INDENT_2) + b"\n")
    return path


def write_csv(path: Path, results: Sequence[dict[str, Any]]) -> None:
    """One line a result, one column a figure."""
    columns = list(dict.fromkeys(name for result in results for name, value in result.items() if _plain(value)))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(results)


def read_results(place: Path) -> list[dict[str, Any]]:
    """The results in a file (one object, or one a line) or in the JSON files of a folder, by name.

    Raises ConfigurationError where there are none.
    """
    paths = sorted(place.glob("*.json")) if place.is_dir() else [place]
    found: list[dict[str, Any]] = []
    for path in paths:
        try:
            found += _objects(path.read_bytes())
        except (OSError, ValueError) as exc:
            raise ConfigurationError(f"{path} is no result file: {exc}.") from exc
    found = [result for result in found if "request_throughput" in result]
    if not found:
        raise ConfigurationError(f"{place} holds no results.")
    return found


def _objects(content: bytes) -> list[dict[str, Any]]:
    try:
        values = [orjson.loads(content)]
    except orjson.JSONDecodeError:
        values = [orjson.loads(line) for line in content.splitlines() if line.strip()]
    return [value for value in values if isinstance(value, dict)]


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))
