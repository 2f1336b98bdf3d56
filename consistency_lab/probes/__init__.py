"""Why do the outputs agree? Difficulty and landscape of given models; nothing is trained here."""
