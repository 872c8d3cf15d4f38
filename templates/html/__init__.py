"""Templates of pages: one file each, with its style in it."""
