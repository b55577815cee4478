"""Every exception onnxprune raises on purpose.

    OnnxPruneError
    ├── InputError (ValueError)          bad usage or bad input: exit status 2, nothing written
    │   ├── ModelError                   a model file that is missing, truncated, not ONNX, unsafe or unsupported
    │   ├── OptionError                  an option, target or recipe field with a value that makes no sense
    │   ├── PlanError                    a plan that does not fit the model it is applied to
    │   ├── ChangedError                 a file that was changed, replaced or removed while the command ran
    │   ├── OutputError                  an output path that cannot or must not be written
    │   └── ProviderError                an execution provider that this machine does not have
    ├── RequirementError (RuntimeError)  a requirement was not met: exit status 1, nothing written
    │   ├── QualityError                 the result is not as good as a gate asks
    │   ├── TargetError                  no plan reaches the target; says what is reachable
    │   ├── VerificationError            the pruned model is not the masked model
    │   ├── WorkerDied                   a process that did a part of the work died, and again when that was repeated
    │   ├── TimedOut                     a part of the work took longer than it may
    │   └── EngineLost                   the cluster that does the work is gone
    ├── ReportError (OSError)            nobody takes the report: exit status 74, the output files are written
    └── ContractError (AssertionError)   onnxprune broke its own contract: a defect in a rule or a pass
        ├── RuleError                    a rule whose equation contradicts the shapes of its node
        └── PassError                    a pass that failed; names it and its options

A message names the file, node, axis or option at fault and the way out, in one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar

__all__ = [
    "ChangedError",
    "ContractError",
    "EngineLost",
    "InputError",
    "ModelError",
    "OnnxPruneError",
    "OptionError",
    "OutputError",
    "PassError",
    "PlanError",
    "ProviderError",
    "QualityError",
    "ReportError",
    "RequirementError",
    "RuleError",
    "TargetError",
    "TimedOut",
    "VerificationError",
    "WorkerDied",
]


class OnnxPruneError(Exception):
    """Root of everything onnxprune raises on purpose.

    Attributes:
        exit_status: what the command line returns for it.
        wording: how a message is told; ``None`` as it is, with options as the command line spells them.
    """

    exit_status = 1
    wording: ClassVar[Callable[[str], str] | None] = None

    def __str__(self) -> str:
        """The message."""
        text = super().__str__()
        return text if OnnxPruneError.wording is None else OnnxPruneError.wording(text)


class InputError(OnnxPruneError, ValueError):
    """Bad usage or bad input."""

    exit_status = 2


class ModelError(InputError):
    """A model file that is missing, truncated, not ONNX, unsafe or unsupported."""


class OptionError(InputError):
    """An option, a target or a recipe field whose value makes no sense."""


class PlanError(InputError):
    """A plan that does not fit the model it is applied to."""


class ChangedError(InputError):
    """A file that was changed, replaced or removed while the command ran."""


class OutputError(InputError):
    """An output path that cannot or must not be written."""


class ProviderError(InputError):
    """An execution provider that this machine does not have."""


class RequirementError(OnnxPruneError, RuntimeError):
    """What was asked for could not be met."""


class QualityError(RequirementError):
    """The result is not as good as a gate asks (``--min-score``, ``--max-drop``, ``--min-agreement``)."""


class TargetError(RequirementError):
    """No plan reaches the target."""


class VerificationError(RequirementError):
    """The pruned model does not compute what the masked model computes."""


class WorkerDied(RequirementError):  # noqa: N818 - what happened elsewhere, not what is wrong here, as `subprocess.TimeoutExpired`
    """A process that did a part of the work died, and again when that was repeated."""


class TimedOut(RequirementError):  # noqa: N818 - as `WorkerDied`
    """A part of the work took longer than it may; the process that did it is gone."""


class EngineLost(RequirementError):  # noqa: N818 - as `WorkerDied`
    """The cluster that does the work is gone: its scheduler does not answer."""


class ReportError(OnnxPruneError, OSError):
    """Stdout, or a server that it was to be logged to, takes no report; the output files are written."""

    exit_status = 74


class ContractError(OnnxPruneError, AssertionError):
    """onnxprune broke its own contract."""

    exit_status = 70


class RuleError(ContractError):
    """A rule whose equation contradicts the shapes of its node."""


class PassError(ContractError):
    """A pass that failed or did not keep its contract."""
