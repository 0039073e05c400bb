"""Authentication: from a credential to a `Principal`.

`authenticator` takes access keys and, through `identity_provider`, tokens of an identity provider; `service_tokens`
verifies tokens of Voximplant's service accounts.
"""
