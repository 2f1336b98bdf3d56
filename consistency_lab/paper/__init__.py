"""The harness of one paper: its studies over families of models, its race, and their figures. The library does not need it."""
