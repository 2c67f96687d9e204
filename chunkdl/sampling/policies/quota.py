"""No patient is loaded more often than its quota."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chunkdl.dataset.patients import Patient
from chunkdl.errors import ConfigError
from chunkdl.sampling.policies.policy import HALT, Halt, Policy, Situation


@dataclass(frozen=True, slots=True)
class Quota(Policy):
    """Wraps another policy and limits the number of BigChunks per patient; then the stream ends.

    For the other policy, a patient that has reached its quota counts as finished.

    Attributes:
        policy: chooses among the patients below their quota.
        loads: BigChunks of each patient, at least 1; or a function from patient to that number,
            which may be 0 for some.
    """

    policy: Policy
    loads: int | Callable[[Patient], int]

    def for_patients(self, patients: Sequence[Patient]) -> Policy:
        """The policy with the quotas of these patients.

        Raises:
            ConfigError: a quota is not a whole number, is negative, or all are 0; or the other
                policy cannot use these patients.
        """
        loads = self.loads
        quotas = tuple(
            _checked_quota(loads(patient) if callable(loads) else loads, patient)
            for patient in patients
        )
        if not any(quotas):
            raise ConfigError("all quotas are 0; allow at least one patient a BigChunk")
        return _UpToQuota(self.policy.for_patients(patients), quotas)


@dataclass(frozen=True, slots=True)
class _UpToQuota(Policy):
    """`Quota` that knows the quota of each patient."""

    policy: Policy
    quotas: tuple[int, ...]

    def choose(self, now: Situation) -> int | Halt | None:
        loads = now.loads.tolist()
        full = {patient for patient, most in enumerate(self.quotas) if loads[patient] >= most}
        finished = now.finished | full
        if len(finished) == len(loads):
            return HALT
        waiting = tuple(patient for patient in now.waiting if patient not in full)
        choice = self.policy.choose(replace(now, waiting=waiting, finished=finished))
        if choice in full:
            raise ConfigError(
                f"{self.policy!r} chose patient {choice}, which is at its quota of "
                f"{loads[choice]} BigChunks; a policy must not choose from Situation.finished"
            )
        return choice


def is_built_in(policy: Policy) -> bool:
    """Whether the policy, and any that it wraps, is one of chunkdl; such look at no status."""
    if not type(policy).__module__.startswith(f"{__package__}."):
        return False
    return not isinstance(policy, Quota | _UpToQuota) or is_built_in(policy.policy)


def _checked_quota(value: object, patient: Patient) -> int:
    try:
        quota = operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigError(f"{patient!r}: the quota must be an int, not {value!r}") from error
    if quota < 0:
        raise ConfigError(f"{patient!r}: the quota must be at least 0 BigChunks, not {quota}")
    return quota
