"""Run the command line with `python -m onetrunk`."""

from onetrunk.cli import main

main()
