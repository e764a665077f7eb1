"""The agent: makes links, rules and sandboxes of one host match what the api wants, and reports what is in force.

It is level-triggered: whatever is left over from before (its own death included) is observed, compared with
the desired state, and repaired. ``reconcile`` decides, ``devboxes`` and ``enforcer`` act, ``main`` puts it together.
"""
