"""Settings: the table of all of them, how each is read, and what they mean together."""
