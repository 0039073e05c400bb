"""Authentication: from a credential to a `Principal`.

`authenticator` takes access keys and, through `identity_provider`, tokens of an identity provider; `service_tokens`
verifies tokens of Voximplant's service accounts.
"""

#: How far the clocks of whoever signs a token and of this machine may differ, both ways, for tokens of both kinds.
LEEWAY_SECONDS = 60
