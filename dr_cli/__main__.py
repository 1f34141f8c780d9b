"""`python -m dr_cli` is `dr`."""

from dr_cli.cli import main

if __name__ == "__main__":
    main()
