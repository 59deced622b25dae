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
    except PmvarError as error:
        print(f"pmvar: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except MemoryError:
        print("pmvar: out of memory; use fewer --paths or a smaller --memory", file=sys.stderr)
        sys.exit(6)
    except Exception:
        traceback.print_exc()
        print("pmvar: this is a bug; please report the lines above", file=sys.stderr)
        sys.exit(PmvarError.exit_code)
