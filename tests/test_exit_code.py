"""An error that nobody foresaw ends with 70, and its traceback is there to report."""

import subprocess
import sys

PROGRAM = """
import sys
import pmvar.cli.doctor

def broken():
    raise ZeroDivisionError("unforeseen")

pmvar.cli.doctor.report = broken
sys.argv = ["pmvar", "doctor"]
pmvar.cli.main()
"""


def test_unforeseen_error_is_a_bug(root, user_env):
    env = {**user_env, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 70
    assert "Traceback" in done.stderr and "ZeroDivisionError: unforeseen" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("pmvar: this is a bug")
