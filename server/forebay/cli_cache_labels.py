"""`forebay cache explain | export | import | forget`: the semantic tier's view of a pair, and its labels."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from forebay.cli_data import administer, data_file, print_json, print_table, printable
from forebay.errors import ConfigurationError
from forebay.settings import Settings
from forebay.tenants.audit import Act, write_audit

if TYPE_CHECKING:
    from forebay.cache.aims import Aims
    from forebay.cache.assurance import Assurance
    from forebay.cache.label_rows import State

MAX_FILE_BYTES = 1 << 20


def add_label_commands(commands: Any) -> None:
    """`commands`: what argparse's `add_subparsers` returns."""
    explain = commands.add_parser("explain", help="why the answer to one message would be given to another, or not")
    explain.add_argument("asked")
    explain.add_argument("stored")
    explain.add_argument("--owner", default="default", help="of whose labels: a tenant, or group:NAME")
    explain.add_argument("--json", action="store_true", help="everything, as one JSON object")
    explain.set_defaults(run=_explain)
    export = commands.add_parser("export", help="print what labels have shown of an owner's hits, as JSON")
    export.add_argument("owner", help="a tenant, or group:NAME")
    export.set_defaults(run=_export)
    take = commands.add_parser("import", help="take what was exported elsewhere; a server that runs has it in seconds")
    take.add_argument("owner", help="a tenant, or group:NAME")
    take.add_argument("file", type=Path, help="- for standard input")
    take.set_defaults(run=_import)
    forget = commands.add_parser("forget", help="observe anew")
    forget.add_argument("owner", help="a tenant, or group:NAME")
    forget.set_defaults(run=_forget)


def show_standings(settings: Settings) -> None:
    """As they were saved last, which a server that runs does every ten seconds."""
    known = known_labels(settings)
    if not known:
        return
    rows = [_row(settings, owner, assurance) for owner, assurance in known.items()]
    print()
    print_table([("labels of", "hits are", "allowed", "error rate", "at most", "hits", "labels in force"), *rows])
    print()
    print_table([("labels of", "count for"), *((owner, printable(one.source)) for owner, one in known.items())])


def standings(settings: Settings) -> dict[str, dict[str, Any]]:
    """The same by owner, with what the labels count for."""
    return {
        owner: {
            **assurance.standing().as_dict(),
            "source": assurance.source,
            "of_another_source": _is_of_another_source(settings, assurance),
        }
        for owner, assurance in known_labels(settings).items()
    }


def known_labels(settings: Settings) -> dict[str, Assurance]:
    """By owner, as these settings ask of them."""
    from forebay.cache.groups import check_state

    return {owner: check_state(state, _aims(settings, owner)) for owner, state in _states(settings).items()}


def _states(settings: Settings) -> dict[str, State]:
    from forebay.cache.label_rows import read_labels

    with data_file(settings) as file:
        return {row.owner: row.state for row in read_labels(file) if row.state is not None}


def _is_of_another_source(settings: Settings, assurance: Assurance) -> bool:
    """Surely: made by another decision or embedder, or in another epoch than these settings'. The model is the server's
    to know."""
    from forebay.cache.source import is_made_here

    return not is_made_here(assurance.source, settings.cache_epoch)


def _row(settings: Settings, owner: str, assurance: Assurance) -> tuple[str, ...]:
    told = assurance.standing()
    state = f"served from {told.threshold:.3f}" if told.threshold is not None else f"observed: {told.why}"
    if _is_of_another_source(settings, assurance):
        state = "observed: of another source"
    shares = (f"{share:.2%}" for share in (told.max_error_rate, told.error_rate, told.error_upper95))
    return (owner, state, *shares, str(told.num_hits), f"{told.labels_in_force:.0f} of {told.clean_labels_needed}")


def _explain(args: argparse.Namespace, settings: Settings) -> int:
    from forebay.cache.analysis import match_form
    from forebay.cache.calibration import load_calibration
    from forebay.cache.explain import explain
    from forebay.embedding.auto import load_embedder

    embedder = load_embedder()
    first, second = embedder.embed([match_form(text) for text in (args.asked, args.stored)])
    known = known_labels(settings).get(args.owner)
    if known is not None and _is_of_another_source(settings, known):
        known = None
    found = explain(args.asked, args.stored, float(first @ second), load_calibration(embedder.name))
    told = found.as_dict(None if known is None else known.threshold, _aims(settings, args.owner))
    if args.json:
        print_json(told)
        return 0
    if (volatile := found.volatile) is not None:
        print(f"left to the exact tier: the answer depends on the {volatile.kind} ({printable(volatile.words)})")
    if (refusal := found.verdict.refusal) is not None:
        print(f"refused by the guard `{refusal.guard}`: {printable(refusal.reason)}")
    print(f"compared: {printable(found.forms[0])} | {printable(found.forms[1])}")
    print(f"cosine {told['cosine']}, probability {told['probability']}, score {told['score']}")
    for name, added in list(told["contributions"].items())[:8]:
        print(f"  {name:<22} {added:+.2f}")
    needed = "nothing is served yet" if told["threshold"] is None else f"hits need {told['threshold']:.4f}"
    print(f"{needed}: {told['action']}")
    return 0


def _export(args: argparse.Namespace, settings: Settings) -> int:
    state = _states(settings).get(args.owner)
    if state is None:
        raise ConfigurationError(f"There are no labels of {printable(args.owner)}.")
    print_json(state)
    return 0


def _import(args: argparse.Namespace, settings: Settings) -> int:
    from forebay.cache.groups import check_state

    try:
        raw = (
            sys.stdin.buffer.read(MAX_FILE_BYTES) if str(args.file) == "-" else args.file.read_bytes()[:MAX_FILE_BYTES]
        )
        state = orjson.loads(raw)
        if not isinstance(state, dict):
            raise ValueError("not the state of labels")
        check_state(state, _aims(settings, args.owner))
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{args.file} cannot be imported: {exc}.") from exc
    _put(settings, args.owner, state)
    print(f"Labels of {printable(args.owner)} imported; they count for: {printable(str(state['source']))}.")
    return 0


def _forget(args: argparse.Namespace, settings: Settings) -> int:
    _put(settings, args.owner, None)
    print(f"{printable(args.owner)} observes anew.")
    return 0


def _put(settings: Settings, owner: str, state: dict[str, Any] | None) -> None:
    from forebay.cache.aims import is_owner
    from forebay.cache.label_rows import import_labels

    if not is_owner(owner):
        raise ConfigurationError(f"{printable(owner)} is no tenant's name, and no group:NAME.")
    act: Act = "cache.forget" if state is None else "cache.import"

    def put(file: Any, admin: Any) -> None:
        import_labels(file, owner, state)
        write_audit(file, admin.name, admin.via, act, owner, owner, {})

    administer(settings, put)


def _aims(settings: Settings, owner: str) -> Aims:
    from forebay.cache.aims import read_aims

    return read_aims(settings.cache_max_error_rate, settings.cache_error_rates, settings.cache_shadow_rate)(owner)
