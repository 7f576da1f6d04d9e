"""`corral`, and `python -m corral`."""

from __future__ import annotations

from corral.cli import app


def main() -> None:
    """Run the command line."""
    app.make()()


if __name__ == "__main__":
    main()
