"""The template of a policy file that a kit brings along."""

from __future__ import annotations

__all__ = ["POLICY_TEMPLATE"]

POLICY_TEMPLATE = """\
# The policy of this site: what it takes part in, whatever the coordinator asks.
# Give it with: anabranch join URL --data DIR --policy policy.toml
# Everything is allowed that no line forbids; take the # away in front of what shall hold.

[work]
# algorithms = ["fedavg", "fedprox"]   # no others
# models = ["logistic", "mlp"]         # no others
# columns = ["age", "sex", "chol"]     # no others may be used; the target counts too
# max_epochs = 5                       # passes over the data in a round
# max_rounds = 200                     # rounds of a run
# hours = ["20:00-06:00"]              # when tasks are done, by the clock of this machine
# own_code = false                     # only models and rules that are part of Anabranch

[traffic]
# max_upload = 20_000_000              # bytes of one update
# max_upload_day = 200_000_000         # bytes of all updates in 24 hours

[privacy]
# updates = "summed"                   # "any", "summed" (sums only), "private" (sums, or noise)
# max_epsilon = 8.0                    # largest privacy budget of a run; without one: declined
# max_delta = 1e-5                     # largest delta of a run; without one: declined
# units = ["subject", "client"]        # whose presence must be protected; without one: declined
# max_total_epsilon = 10.0             # of all runs together, by this site's own count
# total_delta = 1e-5                   # delta of that count
# count = "/srv/va/spent.sqlite"       # one count for clients of several coordinators
# forgotten = 12                       # rounds that are lost from that count: see AB-992
# min_cohort = 5                       # fewest clients whose updates make a round
# vouched = ["cleveland", "hungary"]   # members that this site knows to be what they say
# min_vouched = 2                      # fewest of them in a secure sum that it helps to open

[contract]
approve = "first and amended"          # "never", "first", or every contract and every change
"""
