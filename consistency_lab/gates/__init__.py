"""A decision with its error rates: does a candidate still make the images of its reference?

The room is called gates because Python binds a room's name in the package, where `gate` is the function.
"""
