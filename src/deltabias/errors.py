"""Every exception of the package. All are `ValueError`s, so ``except ValueError`` is enough."""


class DeltabiasError(ValueError):
    """Something that was passed cannot be used; the text says what, what is allowed, what to do."""


class ParseError(DeltabiasError):
    """A string is not mathematics of the accepted kind."""


class RuleError(DeltabiasError):
    """A rule contradicts itself or lacks a part."""


class NotDifferentiableError(DeltabiasError):
    """The update has no Taylor expansion where one was asked for."""


class StrategyError(DeltabiasError):
    """A correction strategy does not apply to this rule."""


class GenerateError(DeltabiasError):
    """Code cannot be printed, or generated files do not match their source."""


class CertifyError(DeltabiasError):
    """A statement cannot be certified, or nothing was checked: never a verdict on the rule."""
