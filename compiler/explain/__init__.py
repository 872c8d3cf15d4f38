"""Why these sizes: what was chosen for a call, what bounds it, and why the other choices lost.

In: a call of a spec on a machine. Out: an `Explanation`, which prints itself as text, as JSON and as one page.
"""
