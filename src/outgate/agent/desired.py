"""The desired state of this host, built up from what the api sends."""

from dataclasses import dataclass, field

from outgate.model.desired import DesiredState, DevboxDocument, PolicyDocument


@dataclass(slots=True)
class DesiredTable:
    """Policies and devboxes as wanted at ``revision``. ``is_known`` is false until the api was heard once."""

    revision: int = 0
    is_known: bool = False
    policies: dict[str, PolicyDocument] = field(default_factory=dict)
    devboxes: dict[str, DevboxDocument] = field(default_factory=dict)

    def merge(self, news: DesiredState) -> frozenset[str]:
        """Take over what changed; returns the ids of devboxes to look at again.

        A full state replaces everything, also when its revision is lower: the store was put back.
        """
        before = dict(self.devboxes)
        if news.full:
            self.policies.clear()
            self.devboxes.clear()
        self.policies.update((policy.id, policy) for policy in news.policies)
        self.devboxes.update((devbox.id, devbox) for devbox in news.devboxes)
        for devbox_id in news.forgotten:
            self.devboxes.pop(devbox_id, None)
        self._drop_unused_policies()
        self.revision, self.is_known = news.revision, True
        return frozenset(
            devbox_id
            for devbox_id in before.keys() | self.devboxes.keys()
            if before.get(devbox_id) != self.devboxes.get(devbox_id)
        )

    def _drop_unused_policies(self) -> None:
        used = {devbox.policy_id for devbox in self.devboxes.values()}
        self.policies = {policy_id: policy for policy_id, policy in self.policies.items() if policy_id in used}
