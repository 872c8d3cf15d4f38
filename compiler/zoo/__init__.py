"""Published recurrences, one short spec each."""
