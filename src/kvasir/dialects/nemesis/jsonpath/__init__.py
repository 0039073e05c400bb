"""JSONPath as the NemesisDB API had it: compiled once, looked up in values."""
