"""``python -m dsctool``."""

from dsctool.cli.app import main

if __name__ == "__main__":
    main()
