"""The command line; the only part of rekern that imports typer and rich."""
