"""The command line: thin, and loading nothing heavy until a command runs."""

from __future__ import annotations

import signal
import sys
import traceback
from types import FrameType

from pmvar.errors import PmvarError


def main() -> None:
    """Entry point of `pmvar`: runs a command and ends with the exit code that its outcome has."""
    from pmvar.cli.app import app

    def terminated(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, terminated)
    try:
        app()
    except SystemExit:
        raise
    except BaseException as error:
        if isinstance(error, PmvarError):
            print(f"pmvar: {error}", file=sys.stderr)
        elif isinstance(error, MemoryError):
            print("pmvar: out of memory; use fewer --paths or a smaller --memory", file=sys.stderr)
        elif not isinstance(error, KeyboardInterrupt):
            traceback.print_exc()
            print("pmvar: this is a bug; please report the lines above", file=sys.stderr)
        sys.exit(exit_code_of(error))


def exit_code_of(error: BaseException) -> int:
    """What a command ends with that ends by `error`."""
    if isinstance(error, PmvarError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return {KeyboardInterrupt: 130, MemoryError: 6}.get(type(error), PmvarError.exit_code)
