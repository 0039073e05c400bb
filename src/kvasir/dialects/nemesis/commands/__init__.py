"""The commands of the NemesisDB API, a module a family, and the profiles that list them."""
