"""A viser server on exactly the port that was asked for, or one clear line why not."""

from __future__ import annotations

import errno
import importlib
import io
import socket
from collections.abc import Callable
from contextlib import redirect_stdout
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dataengine.errors import DataEngineError

if TYPE_CHECKING:
    import viser


class ViewError(DataEngineError):
    """A viewer that cannot start: package missing, port taken, address unknown."""


def load_extra(package: str, extra: str) -> ModuleType:
    """Import an optional package. ViewError names the extra that brings it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ViewError(f"{error.name} is not installed; install the `{extra}` extra (pip install 'dataengine[{extra}]')") from None


def open_server(host: str, port: int, label: str) -> viser.ViserServer:
    """A running server with this project's looks. ViewError when viser is missing or the address cannot be had.

    viser itself would silently take the next free port, so that a bookmark shows another session.
    """
    viser = load_extra("viser", "view")
    check_address(host, port)
    with redirect_stdout(io.StringIO()):  # a banner that `verbose` does not silence
        server = viser.ViserServer(host=host, port=port, label=label, verbose=False)
    if server.get_port() != port:  # another process took it between the check and now
        close_server(server)
        raise ViewError(_taken(host, port))
    server.gui.configure_theme(control_width="large", dark_mode=True, show_logo=False, show_share_button=False)
    server.gui.main_panel.dock_right()
    return server


def close_server(server: viser.ViserServer) -> None:
    """Stop a server without its farewell on stdout."""
    with redirect_stdout(io.StringIO()):
        server.stop()


def by_hand(control: Any, act: Callable[[], None]) -> None:
    """Call ``act`` when a person moves a control, not when the app itself sets it to show its state.

    Both arrive through the same callback, later and in a thread of their own: an echo of our own setting could undo a newer step.
    """

    def changed(event: Any) -> None:
        if event.client is not None:
            act()

    control.on_update(changed)


def check_address(host: str, port: int) -> None:
    """Raise ViewError unless a server can listen at ``host``:``port``."""
    if not 1 <= port <= 65535:
        raise ViewError(f"port {port} does not exist; give one from 1 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror:
        raise ViewError(f"unknown host '{host}'; give an address of this machine, 127.0.0.1 for this machine only") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ViewError(_taken(host, port)) from None
        raise ViewError(f"cannot listen at {host}:{port}: {error.strerror}; give another --host or --port") from None


def _taken(host: str, port: int) -> str:
    return f"port {port} of {host} is in use; close what runs there or give another --port"
