"""The one exception that tells a user what to change."""


class InvalidSetting(ValueError):
    """A setting, argument or file that breaks a rule: the message names it, its value and the rule."""


def require(condition: bool, message: str) -> None:
    """Raise `InvalidSetting` with `message` unless `condition` holds."""
    if not condition:
        raise InvalidSetting(message)


def require_positive(**values: object) -> None:
    """Raise `InvalidSetting` for the first keyword whose Python number is not above zero."""
    for name, value in values.items():
        if isinstance(value, (int, float)):
            require(value > 0, f"{name} = {value}: must be above 0")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise `InvalidSetting` unless `value` is one of `choices`."""
    require(value in choices, f"{name} = {value!r}: must be one of {', '.join(choices)}")
