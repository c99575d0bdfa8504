"""``python -m pyg_lth.cli``: the command line, for where the installed command is not at hand."""

from pyg_lth.cli import main

# The processes that a command starts import this module too.
if __name__ == "__main__":
    main()
