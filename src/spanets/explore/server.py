"""Serves the page: on this machine alone unless --host is given, offline, without telemetry."""

import os
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from spanets.explore.guard import MOST_UPLOADED, Guard, is_address
from spanets.explore.panels import PANELS, PARTS
from spanets.explore.workbench import Settings, Workbench, write_samples
from spanets.sources import open_source
from spanets_runtime.errors import UserError, require

HOST, PORT = "127.0.0.1", 7860

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""

_PORTS = 100
"""Number of ports to try, from the first one, if the user names none."""


def serve(
    bench: Workbench,
    host: str = HOST,
    port: int | None = None,
    say: Callable[[str], None] = print,
    is_public: bool = False,
) -> None:
    """Serves the page until it is interrupted.

    Args:
        bench: Models and images.
        host: Address to listen on. The default answers to this machine only.
        port: Port; None takes the first free one from 7860.
        say: Called with the page's address.
        is_public: Whether it is a Hugging Face Space: a public site, shown in a frame.

    Raises:
        UserError: gradio is not installed, or the address cannot be used.
    """
    set_environment()
    require("gradio", "explore")
    import uvicorn

    with (
        tempfile.TemporaryDirectory(prefix="spanets-explore-") as scratch,
        listen(host, port) as listener,
    ):
        app = make_app(bench, Path(scratch), host, is_public)
        shown = f"[{host}]" if ":" in host else host
        say(f"http://{shown}:{listener.getsockname()[1]}/")
        config = uvicorn.Config(
            app, log_level="warning", server_header=False, timeout_graceful_shutdown=1
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            return


def serve_folder(folder: Path) -> None:
    """Serves the model of a folder that `spanets push --space` wrote.

    On Hugging Face, which sets SPACE_ID, it is a public site; elsewhere for this machine alone.

    Raises:
        UserError: the folder's model cannot be opened.
    """
    name = Path(os.environ.get("SPACE_ID", folder.resolve())).name  # of a clone of the Space, too
    source = replace(open_source(folder), word=name)
    source.network.requires_grad_(False)
    is_public = "SPACE_ID" in os.environ
    host, port = ("0.0.0.0", PORT) if is_public else (HOST, None)
    serve(Workbench({source.info.model: source}), host, port, is_public=is_public)


def set_environment() -> None:
    """Turns off gradio's telemetry and its check for new versions, before it is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def make_app(bench: Workbench, scratch: Path, host: str, is_public: bool = False) -> Any:
    """Returns the page as an ASGI application, behind its guard.

    Args:
        bench: Models and images.
        scratch: Folder for uploads and for what the page shows; nothing else can be read.
        host: Address that it listens on.
        is_public: See `serve`.
    """
    folder = scratch.resolve() / "shown"
    folder.mkdir(exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    import gradio
    from fastapi import FastAPI

    from spanets.explore.app import THEME, make_page
    from spanets.explore.page_text import STYLE

    samples = write_samples(scratch) if bench.folder is None else []
    page = make_page(bench, samples, folder)
    page.queue(max_size=32)
    warm_up(bench, str(samples[0] if samples else bench.listing.images[0]))
    app = gradio.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        server_name=host,
        allowed_paths=[],
        show_error=False,
        max_file_size=MOST_UPLOADED,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        theme=THEME,
        css=STYLE,
    )
    names = None if is_public else [host, socket.gethostname()]
    parents = ["https://huggingface.co"] if is_public else []
    wide = is_address(host) and host not in LOOPBACK
    return Guard(app, str(folder), names, wide, parents)


def warm_up(bench: Workbench, image: str) -> None:
    """Makes what is made once, so that no page waits: copies of the network, fonts, a first plot.

    Args:
        bench: Models and images.
        image: Path of an image.
    """
    word, model = next(iter(bench.models.items()))
    for panel in ("look", "stages") if model.is_image_level else ("detect",):
        with suppress(Exception):  # the page shows it
            show = PARTS[panel] if panel in PARTS else PANELS[panel].show
            show(bench, [word], Settings(image))


def listen(host: str, port: int | None) -> socket.socket:
    """Opens the server's socket.

    Raises:
        UserError: the address or port cannot be used.
    """
    ports = [port] if port is not None else range(PORT, PORT + _PORTS)
    for number in ports:
        try:
            return _bind(host, number)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            failed = UserError(f"{host} port {number}: {reason}; choose another --host or --port")
            if isinstance(error, socket.gaierror) or "in use" not in reason:
                raise failed from error
    raise failed


def _bind(host: str, port: int) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind)
    try:
        if sys.platform != "win32":  # there it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
