"""Every status that this server sends, with its number in NemesisDB 0.3, and the status of each failure of the store.

docs/dialects/nemesis.md says what they mean.
"""

from __future__ import annotations

from enum import IntEnum

from kvasir import errors


class Status(IntEnum):
    """The value of `st`, or of a key's name in `keys`."""

    OK = 1
    OP_CODE_INVALID = 2
    JSON_INVALID = 3
    PATH_INVALID = 4
    #: A pointer that leads nowhere; in the JSONPath form of KV_FIND, a missing `path`.
    PATH_NOT_EXIST = 5
    COMMAND_NOT_EXIST = 10
    COMMAND_MULTIPLE = 11
    COMMAND_TYPE = 12
    COMMAND_SYNTAX = 13
    COMMAND_DISABLED = 14
    KEY_SET = 20
    KEY_UPDATED = 21
    KEY_NOT_EXIST = 22
    KEY_EXISTS = 23
    KEY_REMOVED = 24
    PARAM_MISSING = 26
    VALUE_MISSING = 40
    VALUE_TYPE_INVALID = 41
    #: Empty where that is not allowed, or longer than a limit.
    VALUE_SIZE = 42
    FIND_NO_PATH = 60
    FIND_INVALID_OPERATOR = 62
    SESSION_NOT_EXIST = 100
    SESSION_TOKEN_INVALID = 101
    SESSION_OPEN_FAIL = 102
    SESSION_NEW_FAIL = 103
    SAVE_START = 120
    SAVE_COMPLETE = 121
    SAVE_DIR_WRITE_FAIL = 122
    SAVE_ERROR = 123
    LOAD_COMPLETE = 141
    LOAD_ERROR = 142
    UNKNOWN = 1000


#: Version 0.9 renumbered the statuses of saving.
SAVE_COMPLETE_09 = 120
SAVE_DIR_WRITE_FAIL_09 = 121
SAVE_ERROR_09 = 122

#: The `st` of a failure; its message goes into `m`.
OF_ERROR: dict[type[errors.KvasirError], Status] = {
    errors.Invalid: Status.COMMAND_SYNTAX,
    errors.TooLarge: Status.VALUE_SIZE,
    errors.NotFound: Status.SESSION_NOT_EXIST,
    errors.Unauthenticated: Status.COMMAND_DISABLED,
    errors.Forbidden: Status.COMMAND_DISABLED,
    errors.Conflicting: Status.UNKNOWN,
    errors.Unavailable: Status.UNKNOWN,
    errors.Timeout: Status.UNKNOWN,
    errors.UnknownOutcome: Status.UNKNOWN,
}
