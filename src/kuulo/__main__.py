"""`python -m kuulo`."""

from kuulo.cli import main

main()
