"""Ranger whose bias correction and warm-up count the updates of each parameter, not those of its group.

Progressive training unlocks rows of ws one after the other (paper, App. A). `pytorch_optimizer.Ranger` has one counter
for all parameters, so that those which get their first gradient late start without warm-up: after 900 steps their 25th
update is 22 times as large as that of a parameter trained from the start.
"""

from typing import Any

import pytorch_optimizer
import torch


class Ranger(pytorch_optimizer.Ranger):
    """RAdam, Lookahead and gradient centralisation, each parameter as if training began with its first gradient."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of the parameters that have gradients."""
        whole = self.param_groups
        self.param_groups = [part for group in whole for part in self._by_age(group)]
        try:
            loss = super().step(closure)
            for part in self.param_groups:
                for parameter in part["params"]:
                    self.state[parameter]["updates"] = part["step"]
        finally:
            self.param_groups = whole
        return loss

    def _by_age(self, group: dict[str, Any]) -> list[dict[str, Any]]:
        """The group cut into parts of parameters that were updated equally often; `step` is how often."""
        parts: dict[int, list[torch.Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                parts.setdefault(self.state[parameter].get("updates", 0), []).append(parameter)
        return [{**group, "params": members, "step": updates} for updates, members in parts.items()]
