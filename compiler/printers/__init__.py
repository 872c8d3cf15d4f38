"""Printers: expressions to the text of one target language."""
