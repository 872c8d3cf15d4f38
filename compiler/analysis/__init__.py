"""Analysis: what is true of a recurrence, and why."""
