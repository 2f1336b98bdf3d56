"""All that is said of a kind of result, a file a kind or family of kinds: its figures, numbers, section of a report, view in a notebook."""
