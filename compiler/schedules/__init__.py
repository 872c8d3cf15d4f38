"""Schedules: ways to run a recurrence, each with its problem for the solver and its view for a template."""
