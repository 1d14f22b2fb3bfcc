"""`python -m kuulo.cli`."""

from kuulo.cli import main

main()
