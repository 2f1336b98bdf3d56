"""Distances between images, features of images, and the quality of a set of samples."""
