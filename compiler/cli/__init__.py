"""The command line: what the library knows, shown; and kernels measured against what people write today.

main: the commands, their exit codes. zoo, show, render, bench, doctor: one command each. specs: how a recurrence is
named. workload: sizes and data that make sense for it. loops_cells, loops_matrix: the Python loops. parallel, nn: the
other ways to get the same numbers in torch. timing, measure, floor: how they are compared.
"""
