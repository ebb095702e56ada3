"""Where published weights are fetched from: their own address, or the user's mirror."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from spanets.weights.published import OWNER, Release
from spanets_runtime.errors import UserError

VARIABLE = "SPANETS_RELEASES"
"""Environment variable that names another base for published weights."""


def locations(release: Release) -> list[str | Path]:
    """Returns the addresses or paths of a published file, in the order to try them.

    With `SPANETS_RELEASES` these are below the address or folder that it names, without and with
    the owner of the repository: `SPANet-official/releases/download/...`, then
    `DoranLyong/SPANet-official/releases/download/...`.

    Raises:
        UserError: the variable names neither an http(s) address nor a folder.
    """
    base = os.environ.get(VARIABLE, "").strip()
    if not base:
        return [release.url]
    paths = (release.path, f"{OWNER}/{release.path}")
    if _is_address(base):
        return [f"{base.rstrip('/')}/{path}" for path in paths]
    folder = Path(os.path.expanduser(base))
    if "://" in base or not folder.is_dir():
        raise UserError(
            f"{VARIABLE} is {base!r}, must be an address (http://... or https://...) or an "
            f"existing folder, with files such as {release.path} in it"
        )
    return [folder / path for path in paths]


def _is_address(base: str) -> bool:
    try:
        return bool(urlsplit(base).netloc) and base.lower().startswith(("http://", "https://"))
    except ValueError:  # such as an unclosed bracket
        return False
