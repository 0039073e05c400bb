"""Settings: the table of all of them, how each is parsed, and how they are loaded and checked."""
