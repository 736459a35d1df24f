"""`python -m packmule`: the command line without its console script."""

from packmule.cli import main

main()
