"""`rekern calibrate`: about ten numbers of this machine, measured in seconds and kept as an overlay of its file.

In: a machine. Out: `Measurement`s, and the text of an overlay (`rekern.hwmodels.overlay` reads it).
"""
