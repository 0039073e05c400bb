"""The organisations of the tests, as ULIDs."""

#: Owns what a test makes, unless it says otherwise.
ORGANISATION = "01JZX0W7M2Q4T8V6B3N5C9D1EF"
#: A stranger to it.
OTHER = "01JZX0W7M2Q4T8V6B3N5C9D1EG"
