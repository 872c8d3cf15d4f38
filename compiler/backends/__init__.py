"""Back ends: source text to something that can be launched."""
