"""Credentials -> `Principal`: access keys, service accounts' tokens and tokens of an identity provider."""
