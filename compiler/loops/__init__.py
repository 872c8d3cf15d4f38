"""Loops: the loop programs that schedules produce and printers lay out."""
