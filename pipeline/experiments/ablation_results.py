"""The results of an ablation: its table, and its JSON."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.paired_jackknife import (
    LEVEL,
    Difference,
    JackknifedAuc,
    paired_difference,
)
from pipeline.experiments.ablation_variants import Arm

# What is measured: what it is multiplied by for the table, and digits behind the point.
COLUMNS = {
    "AUC": (100, 1),
    "AUC abnormal": (100, 1),
    "false alarms": (100, 1),
    "gate AUC": (100, 1),
    "even gate": (100, 1),
    "context shuffled": (100, 1),
    "gap": (1, 2),
    "step gap": (1, 3),
    "step correlation": (1, 2),
    "regression AUC": (100, 1),
    "cluster AUC": (100, 1),
    "silhouette": (1, 2),
    "anomalous fraction": (100, 1),
    "parameters": (1e-3, 1),
}


DIFFERENCE = f"difference, {100 * LEVEL:.0f} % interval"


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One training run of one arm, or one linear scorer.

    Attributes:
        arm: What was trained.
        seed: Of the weights, the batches and, where the videos are synthetic, of those.
        values: What was measured, by the names of `COLUMNS`.
        jackknifed: The AUC with and without each test video.
        seconds: Of training and measuring.
    """

    arm: Arm
    seed: int
    values: Mapping[str, float]
    jackknifed: JackknifedAuc
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Ablation:
    """All training runs of an ablation, or those that are done.

    Attributes:
        model_name: Key of `MODELS`.
        dataset: What the model was trained and tested on, as it was named.
        reference: The arm that all others are compared with.
        runs: Arm by arm, and last the linear scorers.
    """

    model_name: str
    dataset: str
    reference: Arm
    runs: tuple[Measured, ...]

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms that were trained, in order, and the linear scorers."""
        return tuple(dict.fromkeys(record.arm for record in self.runs))

    def of_arm(self, arm: Arm) -> list[Measured]:
        """The runs of one arm."""
        return [record for record in self.runs if record.arm == arm]

    def differences(self) -> dict[Arm, Difference]:
        """By arm its mean AUC minus that of the reference; empty before the reference is trained.

        Differences are paired over test videos and, where the seeds are the same, over seeds.
        """
        by_seed = {
            arm: {record.seed: record.jackknifed for record in self.of_arm(arm)}
            for arm in self.arms
        }
        if self.reference not in by_seed:
            return {}
        reference = by_seed.pop(self.reference)
        return {arm: paired_difference(found, reference) for arm, found in by_seed.items()}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The header and the rows of a table for people.

        Mean and sample standard deviation over seeds. AUCs, their differences, false alarms and
        fractions are in percent, parameters in thousands. A difference whose interval excludes 0
        has an asterisk.
        """
        found = dict.fromkeys(name for record in self.runs for name in record.values)
        names = [name for name in COLUMNS if name in found]
        names += [name for name in found if name not in COLUMNS]  # a new model's own diagnostics
        differences = self.differences()
        rows = []
        for arm in self.arms:
            of_arm = self.of_arm(arm)
            first, *others = (_cell(name, of_arm) for name in names)
            compared = "reference" if arm == self.reference else str(differences[arm])
            rows.append([arm.name, str(len(of_arm)), first, compared, *others])
        return ["", "seeds", names[0], DIFFERENCE, *names[1:]], rows

    def as_json(self) -> dict[str, object]:
        """Every single run, for machines: fractions, not percent; null where not a number."""
        return {
            "model": self.model_name,
            "dataset": self.dataset,
            "runs": [
                {
                    "arm": record.arm.name,
                    "settings": list(record.arm.settings),
                    "seed": record.seed,
                    "seconds": record.seconds,
                    "values": {
                        name: value if np.isfinite(value) else None
                        for name, value in record.values.items()
                    },
                }
                for record in self.runs
            ],
            "reference": self.reference.name,
            "level": LEVEL,
            "differences": [
                {
                    "arm": arm.name,
                    "auc": difference.mean,
                    "low": difference.low,
                    "high": difference.high,
                    "excludes_zero": difference.excludes_zero,
                }
                for arm, difference in self.differences().items()
            ],
        }


def _cell(name: str, of_arm: list[Measured]) -> str:
    values = [record.values[name] for record in of_arm if name in record.values]
    if not values or not np.isfinite(values).all():
        return "-"
    factor, n_digits = COLUMNS.get(name, (1, 2))
    mean = f"{factor * np.mean(values):.{n_digits}f}"
    if len(values) == 1 or name == "parameters":
        return mean
    return f"{mean} ± {factor * np.std(values, ddof=1):.{n_digits}f}"
