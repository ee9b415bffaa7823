"""The worker process: `python -m awqbench.worker --connection N --control N --client PID --backend MODULE:CLASS`."""

from __future__ import annotations

import argparse
import faulthandler
import socket

from awqbench.worker.guard import fork_under_guard


def main() -> None:
    """Serve on an inherited socket, in a child of this process."""
    parser = argparse.ArgumentParser(prog="python -m awqbench.worker")
    parser.add_argument("--connection", type=int, required=True, help="inherited Unix stream socket")
    parser.add_argument("--control", type=int, required=True, help="inherited end of a pipe that ends with the client")
    parser.add_argument("--client", type=int, required=True, help="process id of the client, which started this one")
    parser.add_argument("--backend", required=True, help="module:Class of the backend")
    options = parser.parse_args()
    fork_under_guard(options.control, options.client, options.connection)

    # Imported in the worker alone: its guard stays small.
    from awqbench.worker.ops import Session
    from awqbench.worker.server import Server

    faulthandler.enable()  # a crash in native code leaves its stack in the log
    Server(socket.socket(fileno=options.connection), Session(options.backend)).serve()


if __name__ == "__main__":
    main()
