"""The facts of one run: each proved exactly once, each doubted by at most its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from labs.harness.problem import LabError


@dataclass
class Ledger:
    """Which facts a run has told, and which negative controls did their work."""

    facts: Mapping[str, str]
    told: dict[str, bool] = field(default_factory=dict)
    controls: dict[str, bool] = field(default_factory=dict)

    def tell(self, fact: str, *, holds: bool) -> None:
        """Note a fact.

        Raises:
            LabError: when the lab declares no such fact, or has told it already.

        """
        self._known(fact)
        if fact in self.told:
            raise LabError(f"事実「{fact}」を2回確かめています。1回の実行で1回だけ確かめてください")
        self.told[fact] = holds

    def doubt(self, fact: str, *, holds: bool) -> None:
        """Note a negative control: the fact must not hold here."""
        self._known(fact)
        self.controls[fact] = self.controls.get(fact, True) and not holds

    def _known(self, fact: str) -> None:
        if fact not in self.facts:
            known = "、".join(self.facts)
            raise LabError(f"事実「{fact}」はLABのfactsにありません（あるもの: {known}）")

    def close_run(self) -> None:
        """End a run.

        Raises:
            LabError: when a declared fact was never told.

        """
        if missing := [fact for fact in self.facts if fact not in self.told]:
            raise LabError(f"確かめなかった事実があります: {'、'.join(missing)}")

    def close_control(self) -> None:
        """End the negative controls.

        Raises:
            LabError: when there was none.

        """
        if not self.controls:
            raise LabError("対照実験（control）が1つも事実を試していません")
