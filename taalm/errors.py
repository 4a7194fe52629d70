"""The one exception that means "the user can fix this": entry points print it and exit with code 2."""


class UserError(ValueError):
    """What was wrong, where (file, line, flag) and what to do, in one sentence."""


class NoResult(UserError):
    """These settings, or this data, cannot give a result, however often they are run; a grid goes on without it."""
