"""The commands: python -m nclib audit, device, monitor or scoreboard; each explains itself: -h."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from nclib.places import whole


def audit(arguments: list[str]) -> int:
    """ask whether a training set is poisoned, and write one page about it"""
    try:
        from nclib.audit import command
    except ImportError as error:  # Python itself would end with 1, which means suspicious
        print(f"audit: {error}", file=sys.stderr)
        return 2
    return command.main(arguments)


def device(arguments: list[str]) -> int:
    """describe this computer and compare its device with the CPU"""
    from nclib import device

    argparse.ArgumentParser("python -m nclib device").parse_args(arguments)
    return device.main()


def monitor(arguments: list[str]) -> int:
    """print a monitor's log and draw its time line, or serve its last day as a page"""
    from nclib.monitor import page

    parser = argparse.ArgumentParser("python -m nclib monitor")
    command = parser.add_subparsers(dest="command", required=True)
    show = command.add_parser("report", help="print a log and draw its time line")
    show.add_argument("log", type=Path)
    show.add_argument("--figure", type=Path, help="where the time line goes (default: LOG.png)")
    serve = command.add_parser("serve", help="a page of the last day, for this machine alone")
    serve.add_argument("log", type=Path)
    serve.add_argument("--port", type=int, default=0, help="default: one that is free")
    options = parser.parse_args(arguments)
    try:
        if options.command == "report":
            return _report(options.log, options.figure or options.log.with_suffix(".png"))
        server = page.serve(options.log, options.port)
    except (OSError, OverflowError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    print(f"http://127.0.0.1:{server.server_port}/ shows {options.log}; Ctrl-C ends", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


def _report(log: Path, figure: Path) -> int:
    from nclib import monitor
    from nclib.plots import monitor as draw
    from nclib.plots import panels

    if figure.suffix == ".png" and figure.exists() and figure.read_bytes()[:4] != b"\x89PNG":
        raise ValueError(f"--figure: {figure} is there and no picture; name another file")
    print(monitor.report(log))
    _, windows = monitor.read(log)
    canvas, (ax,) = panels(width=9, height=3.4)
    draw.timeline(windows, ax=ax)
    with whole(figure) as draft:
        canvas.savefig(draft)
    print(f"drew {figure}")
    return 0


def scoreboard(arguments: list[str]) -> int:
    """measure what is missing of a grid, or draw the board"""
    from nclib.scoreboard import command

    return command.main(arguments)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "audit": audit,
    "device": device,
    "monitor": monitor,
    "scoreboard": scoreboard,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the first argument names with the arguments after it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    words = "\n".join(f"  {name:12}{command.__doc__}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser("python -m nclib", epilog=f"commands:\n{words}")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=COMMANDS)
    chosen = parser.parse_args(arguments[:1]).command
    return COMMANDS[chosen](arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
