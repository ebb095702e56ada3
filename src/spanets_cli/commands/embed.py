"""`spanets embed`: computes a vector for each image, and answers questions with them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spanets_cli.limits import MOST_COUNT, refuse_large_batches
from spanets_cli.option_types import fraction, local_path, whole
from spanets_cli.output import print_json, print_notes, print_table, say, tell
from spanets_cli.programs import refuse_program
from spanets_cli.ranks import only_first_prints
from spanets_cli.shared_options import add_batch, add_pretrained, add_size, add_weights, add_workers
from spanets_runtime.text import escape_values

if TYPE_CHECKING:
    from spanets.data.kept_results import KeptResults

HELP = "compute a vector for each image; measure them, find copies and similar images"

EPILOG = """\
examples:
  spanets embed spanet_small photos --out photos.npz
  spanets embed spanet_small photos --duplicates
  spanets embed --from photos.npz --knn 20

In place of MODEL and IMAGE, --from FILE reads vectors that were stored with --out.
"""


class _ReadStored(argparse.Action):
    """Stores the path of an embedding file; MODEL and IMAGE are then optional."""

    def __init__(self, positionals: Sequence[argparse.Action], **options: Any) -> None:
        super().__init__(**options)
        self.positionals = positionals

    def __call__(self, _: Any, namespace: argparse.Namespace, value: Any, *__: Any) -> None:
        """Stores the path."""
        setattr(namespace, self.dest, value)
        for positional in self.positionals:
            positional.required = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    model = parser.add_argument(
        "model",
        type=local_path,
        metavar="MODEL",
        help="a model name, checkpoint, published folder or module:function",
    )
    images = parser.add_argument(
        "images",
        type=local_path,
        nargs="+",
        metavar="IMAGE",
        help="folders of images, or image files",
    )
    parser.add_argument(
        "--out", type=local_path, metavar="FILE", help="FILE.npz or FILE.parquet for the vectors"
    )
    parser.add_argument(
        "--from",
        type=local_path,
        dest="stored",
        action=_ReadStored,
        positionals=[model, images],
        metavar="FILE",
        help="read the vectors of a file that --out wrote; MODEL is optional",
    )
    add_weights(parser)
    add_pretrained(parser)
    _add_network_options(parser)
    _add_questions(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layer",
        metavar="MODULE",
        help="module whose output is averaged over space (default: pre_logits, the pooled "
        "features before the classifier)",
    )
    add_size(parser)
    add_batch(parser, 32, "; it does not affect the vectors (default: 32)")
    add_workers(parser)
    parser.add_argument(
        "--normalize", action="store_true", help="scale the stored vectors to length 1"
    )


def _add_questions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--knn",
        nargs="?",
        type=whole(1, MOST_COUNT),
        const=20,
        metavar="K",
        help="held-out accuracy of K weighted nearest neighbours (default: 20)",
    )
    parser.add_argument(
        "--probe", action="store_true", help="held-out accuracy of a logistic regression"
    )
    parser.add_argument(
        "--duplicates",
        nargs="?",
        type=fraction,
        const=0.98,
        metavar="T",
        help="pairs of images with the same content, or a cosine of T or more (default: 0.98); "
        "writes a table and a sheet beside --out",
    )
    parser.add_argument(
        "--query",
        type=local_path,
        nargs="+",
        default=[],
        metavar="IMAGE",
        help="find the images nearest to these; draws a sheet beside --out",
    )
    parser.add_argument(
        "--nearest",
        type=whole(1, 50),
        default=10,
        metavar="N",
        help="number of images for each --query (default: 10)",
    )


def run(arguments: argparse.Namespace, _: list[str]) -> int:
    """Embeds or reads, stores, answers and prints; returns 1 if an image could not be read.

    The processes of torchrun share the images; rank 0 does the rest.
    """
    with only_first_prints() as rank:
        return run_rank(arguments, rank.is_first)


def run_rank(arguments: argparse.Namespace, is_first: bool) -> int:
    """Runs the command as rank 0, or computes the vectors of another rank."""
    from spanets.embedding.report import Questions, answer
    from spanets.embedding.storing import check_out, save_embeddings

    beside = arguments.out or arguments.stored
    questions = Questions(
        arguments.knn,
        arguments.probe,
        arguments.duplicates,
        arguments.query,
        arguments.nearest,
        None if beside is None else Path(beside),
    )
    check_usage(arguments, bool(questions))
    if arguments.out is not None:
        check_out(arguments.out)
    if arguments.stored and not is_first:
        return 0
    kept = None if arguments.stored else _open_parts(arguments)
    if arguments.stored:
        embeddings, network = read_stored(arguments, questions)
    else:
        embeddings, network = compute(arguments, questions, kept)
    if not is_first:
        return 0
    for line in embeddings.left_out:
        tell(f"spanets: {line}")
    if arguments.out is not None:
        save_embeddings(embeddings, arguments.out)
        if kept is not None:
            kept.remove()
    results = {**describe(embeddings, arguments.out)}
    if not arguments.json:
        say_embeddings(results)
    answers = answer(embeddings, questions, network, arguments.batch)
    for line in answers["left_out"]:
        tell(f"spanets: {line}")
    left_out = [*embeddings.left_out, *answers.pop("left_out")]
    if embeddings.left_out:
        count = len(embeddings.left_out)
        tell(f"spanets: {count} of {count + len(embeddings)} images left out")
    if arguments.json:
        return print_json({**results, "left_out": left_out, **answers}) or int(bool(left_out))
    say_answers(answers)
    return int(bool(left_out))


def check_usage(arguments: argparse.Namespace, is_asked: bool) -> None:
    """Raises a UsageError for options that do not go together."""
    from spanets_runtime.errors import UsageError

    if arguments.out is None and not is_asked:
        raise UsageError(
            "nothing to do: add --out FILE, --knn, --probe, --duplicates or --query IMAGE"
        )
    if arguments.model is not None:
        refuse_program(arguments.model, "embed")
    refuse_large_batches([arguments.batch], [arguments.size or 0])
    if arguments.stored is None:
        return
    if arguments.images:
        raise UsageError(
            f"--from {arguments.stored} has the vectors; leave out {arguments.images[0]}, or leave "
            "out --from to embed it"
        )
    for option in ("layer", "size", "normalize"):
        if getattr(arguments, option):
            raise UsageError(f"--{option} goes with MODEL and IMAGE; leave it out with --from")


def compute(
    arguments: argparse.Namespace, questions: Any, kept: "KeptResults | None"
) -> tuple[Any, Any]:
    """Returns new embeddings and their model, after checks that need no model."""
    from spanets.data.ranks import shared_batches
    from spanets.data.sources.labelled import gather_labelled
    from spanets.embedding.extract import embed
    from spanets.embedding.holdout import check_labels
    from spanets.embedding.network import open_network

    listed = gather_labelled(arguments.images)
    questions.check(listed.images)
    if questions.needs_labels:
        check_labels(listed.classes)
    network = open_network(
        arguments.model,
        arguments.layer,
        arguments.size,
        arguments.weights,
        arguments.pretrained,
    )
    early = [*listed.notes, *network.notes]
    print_notes(early)  # the vectors may take hours
    with shared_batches(kept):
        embeddings = embed(
            network,
            listed,
            batch_size=arguments.batch,
            workers=arguments.workers,
            normalize=arguments.normalize,
        )
    print_notes(note for note in embeddings.notes if note not in early)
    return embeddings, network


def _open_parts(arguments: argparse.Namespace) -> "KeptResults | None":
    """Returns the folder beside --out that keeps vectors until all are there."""
    from spanets.data.kept_results import KeptResults
    from spanets_runtime.shared_table import describe_model

    if arguments.out is None:
        return None
    path = Path(arguments.out)
    given = {f"--{name}": getattr(arguments, name) for name in ("layer", "size", "pretrained")}
    facts = {**describe_model(arguments.model, arguments.weights), **given}
    return KeptResults(path.with_name(f"{path.name}.parts"), facts, "name another --out")


def read_stored(arguments: argparse.Namespace, questions: Any) -> tuple[Any, Any]:
    """Returns stored embeddings, and the given model after a check that it made them, or None."""
    from spanets.embedding.report import open_like
    from spanets.embedding.storing import load_embeddings

    embeddings = load_embeddings(arguments.stored)
    questions.check(embeddings.paths)
    network = None
    if arguments.model is not None or questions.queries:
        network = open_like(
            embeddings,
            arguments.model,
            arguments.stored,
            arguments.weights,
            arguments.pretrained,
        )
    return embeddings, network


def describe(embeddings: Any, out: str | None) -> dict[str, Any]:
    """Returns what is known about embeddings, for machines."""
    labels = embeddings.labels
    return {
        "out": out,
        "model": embeddings.origin.model,
        "layer": embeddings.origin.layer,
        "dimensions": embeddings.dimensions,
        "normalized": embeddings.origin.normalized,
        "images": len(embeddings),
        "classes": {name: int((labels == i).sum()) for i, name in enumerate(embeddings.classes)},
        "without_label": int((labels < 0).sum()),
        "parts": {
            part: embeddings.parts.count(part)
            for part in ("train", "val", "test")
            if part in embeddings.parts
        },
    }


def say_embeddings(results: dict[str, Any]) -> None:
    """Prints what was embedded, by which layer, and where it is."""
    length = ", scaled to length 1" if results["normalized"] else ""
    say(
        f"{results['model']}, layer {results['layer']}: {results['dimensions']} numbers an "
        f"image{length}"
    )
    count = results["images"]
    facts = [f"{count} image{'s' * (count != 1)}"]
    if results["classes"]:
        facts.append(f"{len(results['classes'])} class{'es' * (len(results['classes']) > 1)}")
    if results["without_label"]:
        facts.append(f"{results['without_label']} without a label")
    facts += [f"{part} {number}" for part, number in results["parts"].items()]
    where = "" if results["out"] is None else f": {results['out']}"
    say(", ".join(facts) + where)


def say_answers(answers: dict[str, Any]) -> None:
    """Prints the answers for people; a note on both kinds of accuracy only once."""
    notes = [note for key in ("knn", "probe") for note in answers.get(key, {}).get("notes", ())]
    print_notes(dict.fromkeys(notes))
    if "knn" in answers:
        found = answers["knn"]
        say_scores(f"kNN (k {found['k']}, temperature {found['temperature']})", found)
    if "probe" in answers:
        found = answers["probe"]
        say_scores(f"linear probe (L2 {found['penalty']:g})", found)
    if "duplicates" in answers:
        say_duplicates(answers["duplicates"])
    if "nearest" in answers:
        for query in answers["nearest"]["queries"]:
            say(f"nearest to {query['image']}:")
            for entry in query["nearest"]:
                label = f"  {entry['label']}" if entry["label"] else ""
                say(f"  {entry['cosine']:.3f}  {entry['image']}{label}")
        say(f"sheet: {answers['nearest']['sheet']}")


def say_scores(title: str, found: dict[str, Any]) -> None:
    """Prints held-out accuracy and the recall of each class."""
    low, high = found["interval"]
    say(
        f"{title}: accuracy {found['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}), "
        f"balanced accuracy {found['balanced_accuracy']:.3f}"
    )
    say(
        f"  {found['images']} images held out ({found['held_out']}), "
        f"{found['train_images']} to learn from"
    )
    rows = [
        [f"  {name}", str(found["held_out_images"][name]), "-" if v is None else f"{v:.3f}", ""]
        for name, v in found["recall"].items()
    ]
    print_table(["  class", "held out", "recall", ""], rows)


def say_duplicates(found: dict[str, Any]) -> None:
    """Prints the numbers of copies, and where they are listed."""
    found = escape_values(found)
    say(
        f"copies: {count_pairs(found['exact'])} with the same content, "
        f"{count_pairs(found['near'])} of near-duplicates (cosine {found['threshold']:g} or more): "
        f"{found['table']}"
    )
    listed = found["listed"] - found["exact"]
    if listed < found["near"]:
        tell(f"the table lists the {listed} most similar near-duplicate pairs of {found['near']}")
    if found["leaks"]:
        one = found["pairs"][0]
        say(
            f"leakage: {count_pairs(found['leaks'])} across parts, such as {one['first']} "
            f"({one['first_part']}) and {one['second']} ({one['second_part']})"
        )
    if found["conflicts"]:
        say(f"{count_pairs(found['conflicts'])} with different labels")
    if found["sheet"] is not None:
        total = found["exact"] + found["near"]
        shown = f", {found['on_sheet']} of {total} pairs" * (found["on_sheet"] < total)
        say(f"sheet: {found['sheet']}{shown}")


def count_pairs(count: int) -> str:
    """Returns "1 pair" or "2 pairs"."""
    return f"{count} pair{'s' * (count != 1)}"
