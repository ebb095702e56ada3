"""Class names from the labels of shards.

| label | meaning |
| --- | --- |
| an integer in a .json | a class number: classes are 0 to the largest |
| a text in a .json or .txt | a class name, even "2019" or "007" |
| a text in a .cls | a class number if all in the data set can be numbers, else a class name |
| a label written by `spanets shard` | an index into the class names of `dataset.json` |

WebDataset reads .cls as integers, but many data sets write names into it. Texts of .cls are numbers
here if each is an integer without leading zeros, and at least half of 0 to the largest occur. By
the second condition, years are names.
"""

from collections.abc import Sequence

from spanets.data.class_names import describe_twins
from spanets.data.sources.shard_index import MAX_CLASSES, ShardIndex
from spanets_runtime.errors import UserError


def find_classes(
    indices: Sequence[ShardIndex], origin: str, known: Sequence[str] | None = None
) -> tuple[list[str], tuple[str, ...]]:
    """Returns the class names according to the labels, and notes about odd ones.

    Args:
        indices: Indices of the training shards.
        origin: Name of the data set, for messages.
        known: Classes of a checkpoint; if they are the numbers from 0, .cls labels are numbers.

    Raises:
        UserError: labels mix numbers and names, or there are no images.
    """
    labels = dict.fromkeys(label for index in indices for label in index.labels)
    if not labels:
        raise UserError(f"{origin}: its shards to train on hold no images")
    numbers = [label for label in labels if isinstance(label, int)]
    words = [label for label in labels if isinstance(label, str)]
    if numbers and words:
        raise UserError(
            f"{origin}: labels are numbers and names, such as {min(numbers)} and {words[0]!r}"
        )
    if words and all(index.from_cls for index in indices):
        read = [int(word) for word in words if _is_number(word)]
        if len(read) == len(words):
            highest = max(read) + 1
            if 2 * len(read) >= highest or known == [str(i) for i in range(highest)]:
                numbers = read
            else:
                odd = (
                    f"{origin}: labels are {len(read)} of the numbers {min(read)} to "
                    f"{max(read)}: taken for names of {len(read)} classes"
                )
                return sorted(words), (odd,)
    if not numbers:
        return sorted(words), describe_twins(sorted(words), origin)
    return _number_classes(numbers, origin)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 8 and str(int(word)) == word


def _number_classes(numbers: Sequence[int], origin: str) -> tuple[list[str], tuple[str, ...]]:
    count = max(numbers) + 1
    assert count <= MAX_CLASSES  # `parse_index` and `list_tar` check labels
    lacking = count - len(numbers)
    note = f"{origin}: of the classes 0 to {count - 1}, {lacking} have no image to train on"
    return [str(number) for number in range(count)], (note,) if lacking else ()


def number_labels(indices: Sequence[ShardIndex], classes: Sequence[str], origin: str) -> list[int]:
    """Returns the labels as indices into the list of classes.

    Raises:
        UserError: a label is not among the classes.
    """
    places: dict[int | str, int] = {name: place for place, name in enumerate(classes)}
    places |= {place: place for place in range(len(classes))}
    given = [label for index in indices for label in index.labels]
    for label in dict.fromkeys(given):
        if label not in places:
            raise UserError(f"{origin}: label {label!r} is none of the {len(classes)} classes")
    return [places[label] for label in given]
