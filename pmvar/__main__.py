"""`python -m pmvar` is `pmvar`."""

from pmvar.cli import main

main()
