"""`spanets weights`: lists, fetches, verifies and converts weights."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from spanets_cli.option_types import local_path
from spanets_cli.output import print_json, print_notes, print_table, say, tell

if TYPE_CHECKING:
    from spanets.deploy.cached_weights import CachedWeights

HELP = "list, fetch, verify and convert weights"

EPILOG = """\
examples:
  spanets weights list                        what is published, and what is in the cache
  spanets weights fetch spanet_small          fetch once; commands then need no network
  spanets weights fetch '*'                   fetch all
  spanets weights verify                      compare the cache with its records
  spanets weights convert old.pth --out new.safetensors
  spanets weights adapter runs/tuned/best.ckpt --out cells.ckpt

environment variables:
  TORCH_HOME          folder of the cache (default: ~/.cache/torch)
  SPANETS_RELEASES    another base for published weights: an http(s) address or a folder with
                      SPANet-official/releases/download/RELEASE/FILE
  HF_HUB_OFFLINE=1    never use the network
"""

_NAMES = "names, with or without a tag, or patterns such as 'spanet_*'"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the actions, each with its options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text, add, run_action in (
        ("list", "list published weights, and what is in the cache", _add_list, _list),
        ("fetch", "fetch published weights into the cache", _add_fetch, _fetch),
        ("verify", "verify the weights in the cache", _add_verify, _verify),
        ("convert", "convert a weights file to this package's names", _add_convert, _convert),
        ("adapter", "write the adapter of a checkpoint (model.lora) alone", _add_adapter, _adapter),
    ):
        action = actions.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
        )
        add(action)
        action.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,  # keeps a --debug before the action
            help="show the traceback if an error occurs",
        )
        action.add_argument("--json", action="store_true", help="print JSON")
        action.set_defaults(run_action=run_action, parser=action)


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Runs an action."""
    act: Callable[[argparse.Namespace], int] = arguments.run_action
    return act(arguments)


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{_NAMES} (default: all)")


def _add_fetch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help=_NAMES)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{_NAMES} (default: all cached)")


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=local_path, metavar="FILE", help="weights of the authors or of this package"
    )
    parser.add_argument(
        "--out", type=local_path, required=True, metavar="FILE.safetensors", help="file to write"
    )
    parser.add_argument("--model", metavar="NAME", help="the model (default: found by its shapes)")


def _add_adapter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", type=local_path, metavar="CHECKPOINT", help="of a run with model.lora"
    )
    parser.add_argument(
        "--out", type=local_path, required=True, metavar="FILE.ckpt", help="file to write"
    )


def _list(arguments: argparse.Namespace) -> int:
    from spanets.deploy.cached_weights import list_weights

    rows = list_weights(arguments.names)
    if arguments.json:
        return print_json([row.to_dict() for row in rows])
    lines = [
        (
            row.name,
            _megabytes(row.size),
            row.licence or "not stated",
            row.state,
            row.path if row.is_cached else row.url,
        )
        for row in rows
    ]
    print_table(("weights", "size", "licence", "state", "file"), lines)
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    from spanets.deploy.cached_weights import fetch_weights

    return _print_each(fetch_weights(arguments.names), arguments.json, "verified")


def _verify(arguments: argparse.Namespace) -> int:
    from spanets.deploy.cached_weights import verify_weights
    from spanets.weights.fetching import default_cache

    rows = list(verify_weights(arguments.names))
    if not rows and not arguments.json:
        tell(f"no published weights are cached in {default_cache()}")
    return _print_each(rows, arguments.json, "unchanged; keys, shapes and masks are right")


def _print_each(rows: Any, as_json: bool, word: str) -> int:
    found: list[CachedWeights] = []
    for row in rows:
        found.append(row)
        if row.problem is not None:
            tell(f"spanets: {row.name}: {row.problem}")
        elif not as_json:
            say(f"{row.name}: {row.path}: {_megabytes(row.size)}, {word}")
    failed = any(row.problem is not None for row in found)
    return (print_json([row.to_dict() for row in found]) if as_json else 0) or int(failed)


def _convert(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from spanets.deploy.convert import convert_file

    done = convert_file(arguments.file, arguments.out, arguments.model)
    if arguments.json:
        return print_json(asdict(done))
    print_notes(done.notes)
    what = f"{done.tensors} tensors of {done.model or 'an unknown model'}"
    say(f"{done.path}: {what}{'' if done.written else ', was there already'}")
    return 0


def _adapter(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from spanets.adapters import write_adapter

    path = Path(arguments.out)
    count = write_adapter(Path(arguments.checkpoint), path)
    size = path.stat().st_size
    if arguments.json:
        return print_json({"path": str(path), "parameters": count, "bytes": size})
    say(f"{path}: {count:,} parameters, {_megabytes(size)}; use it like a checkpoint")
    return 0


def _megabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e6:.1f} MB"
