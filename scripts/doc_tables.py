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
FORMS = (",.0f", ",.0f", ".1f", ".1f", ",.0f")
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
    where, frontend = found["environment"], found["frontend"]
    rows = [
        f"{where['time'][:10]}, {where['cores']} cores ({where['cpu']}), Python {where['python']}, Forebay "
        f"{where['forebay']} ({where['commit']}); [all of it](docs/benchmarks/{paths[-1].stem}.html).",
        "",
        "| front end alone, one core | requests/s | tokens/s | p50, ms | p99, ms | CPU a request, us |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in ("whole", "one_token_a_step", "coalesced"):
        job = frontend[name]
        figures = (job["requests_per_s"], job["tokens_per_s"], job["p50_ms"], job["p99_ms"], job["cpu_us_per_request"])
        cells = " | ".join(format(value, form) for value, form in zip(figures, FORMS, strict=True))
        rows.append(f"| {name.replace('_', ' ')}, {job['connections']} connections, {job['tokens']} tokens | {cells} |")
    rows += ["", f"| {found['serve'][0]['model_id']}, connections | output tokens/s | TTFT p50, ms | TPOT p50, ms |"]
    rows.append("| --- | --- | --- | --- |")
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
