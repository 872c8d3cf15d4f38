"""What the machine files raise on purpose.

In: a file or a name, and what is wrong with it. Out: a message that quotes it and says what was expected.
"""


class MachineError(Exception):
    """A machine file cannot be read, or there is no such machine."""
