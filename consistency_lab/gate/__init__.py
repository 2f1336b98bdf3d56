"""A decision with its error rates: does a candidate still make the images of its reference?"""
