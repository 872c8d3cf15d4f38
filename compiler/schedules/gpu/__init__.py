"""Schedules for a GPU: what each launch would cost, as formulas of the sizes that are still to be chosen.

In: a `Call` (a spec, lengths, a dtype, a machine). Out: one `Problem` for each schedule that applies, which
covers forward, gradient and step; `ranking.rank` solves them and puts the schedules in order.
"""
